"""Which base a prefix belongs to: a fingerprint of a checkpoint's weights, configuration and
tokenizer.

A prefix means something only over the very weights that it was trained or compiled with. The
runtime compares fingerprints; how one is computed from a checkpoint is `edgeprefix.base.identity`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgeprefix.runtime.errors import BaseMismatchError


@dataclass(frozen=True, kw_only=True)
class BaseIdentity:
    """The fingerprint of a base. `name` is for people and is not compared; the rest are SHA-256 in
    hexadecimal.
    """

    name: str
    weights_sha256: str
    config_sha256: str
    tokenizer_sha256: str

    @property
    def sha256(self) -> str:
        """The identity in one value: SHA-256 over the three parts."""
        parts = (self.weights_sha256, self.config_sha256, self.tokenizer_sha256)
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def __str__(self) -> str:
        return f"{self.name} ({self.sha256[:12]})"

    def require_same(self, other: BaseIdentity, *, what: str) -> None:
        """Raises BaseMismatchError, naming both and the parts that differ, unless `other` is the
        same base.
        """
        differing = [
            part
            for part in ("weights", "config", "tokenizer")
            if getattr(self, f"{part}_sha256") != getattr(other, f"{part}_sha256")
        ]
        if differing:
            raise BaseMismatchError(
                f"{what} belongs to base {other}, but this base is {self}: different "
                f"{' and '.join(differing)}; "
                "train or export the prefix again with this base, or load the bundle of "
                f"{other.name}"
            )

    def to_json(self) -> dict[str, str]:
        """The form kept in prefix files and manifests."""
        return {
            "name": self.name,
            "sha256": self.sha256,
            "weights_sha256": self.weights_sha256,
            "config_sha256": self.config_sha256,
            "tokenizer_sha256": self.tokenizer_sha256,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> BaseIdentity:
        """Reads `to_json`'s form. Raises ValueError when a part is missing or the parts do not give
        the whole.
        """
        if not isinstance(data, Mapping):
            raise ValueError(f"base identity is {type(data).__name__}, expected an object")
        keys = ("name", "weights_sha256", "config_sha256", "tokenizer_sha256")
        values = {key: data.get(key) for key in keys}
        missing = [key for key, value in values.items() if not isinstance(value, str)]
        if missing:
            raise ValueError(f"base identity lacks {', '.join(missing)}")
        identity = cls(**{key: str(value) for key, value in values.items()})
        if data.get("sha256") != identity.sha256:
            raise ValueError("base identity is inconsistent: sha256 does not follow from its parts")
        return identity
