"""Signatures of prefix files: Ed25519 over the content hash, so over tensors and header alike.
Specified in docs/prefix-file.md.

A signature says who made a file, which its hash cannot. Keys are files of one's own (PEM, as
openssl writes them); nothing here asks a network. The package cryptography is imported only when a
key is used.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprefix.runtime.contracts.strict_json import read_value
from edgeprefix.runtime.errors import MissingExtraError, OutputError, SignatureError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )

SIGNATURE_KEY = "edgeprefix.signature"
"""The safetensors metadata entry that holds it."""
ALGORITHM = "ed25519"
PUBLIC_SUFFIX = ".pub"
_CONTEXT = b"edgeprefix prefix file signature v1\n"
_BEGIN, _END = "-----BEGIN PUBLIC KEY-----", "-----END PUBLIC KEY-----"

KeySource = str | Path | Iterable[str | Path]
"""Files of public keys, or folders of `*.pub`."""


@dataclass(frozen=True)
class TrustedKeys:
    """Public keys, 32 bytes each, whose signatures are accepted."""

    keys: frozenset[bytes]

    @classmethod
    def load(cls, source: TrustedKeys | KeySource) -> TrustedKeys:
        """Reads PEM files (one may hold several keys) and folders of `*.pub`. Raises SignatureError
        when one cannot be read or holds no Ed25519 key, MissingExtraError without cryptography.
        """
        if isinstance(source, TrustedKeys):
            return source
        places = [source] if isinstance(source, str | Path) else list(source)
        files = [file for place in places for file in _key_files(Path(place))]
        keys = frozenset(key for file in files for key in _public_keys(file))
        if not keys:
            raise SignatureError(
                "no public key was given; name files that `edgeprefix keygen` wrote, or a folder "
                f"of *{PUBLIC_SUFFIX}"
            )
        return cls(keys)

    def require(self, signature: str | None, content_sha256: str) -> None:
        """Raises SignatureError unless one of the keys signed the content with this hash;
        `signature` is the text of the file's entry, None when it has none.
        """
        if signature is None:
            raise SignatureError(
                "is not signed; sign it with `edgeprefix sign FILE --key KEY`, or do without "
                "--require-signature"
            )
        key, signed = _parts(signature)
        if key not in self.keys:
            raise SignatureError(
                f"is signed by key {key.hex()[:16]}…, which is none of the {len(self.keys)} trusted"
            )
        _ed25519()
        from cryptography.exceptions import InvalidSignature

        try:
            _public(key).verify(signed, _message(content_sha256))
        except (InvalidSignature, ValueError) as error:
            raise SignatureError("has a signature that does not fit its content") from error


class SigningKey:
    """A private key, which signs."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key

    @classmethod
    def load(cls, path: str | Path) -> SigningKey:
        """Reads a PEM file. Raises SignatureError when it cannot be read or is no Ed25519 key,
        MissingExtraError without cryptography.
        """
        private = _ed25519().Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        try:
            key = load_pem_private_key(Path(path).read_bytes(), password=None)
        except OSError as error:
            raise SignatureError(f"{path} cannot be read: {error.strerror or error}") from error
        except (ValueError, TypeError) as error:  # no PEM, or one behind a password
            raise SignatureError(
                f"{path} is no private key as `edgeprefix keygen` writes it: {error}"
            ) from error
        if not isinstance(key, private):
            raise SignatureError(f"{path} holds a key of another kind, expected Ed25519")
        return cls(key)

    @property
    def public_hex(self) -> str:
        """The public key in hexadecimal."""
        return self._key.public_key().public_bytes_raw().hex()

    def sign(self, content_sha256: str) -> dict[str, str]:
        """The file's entry for the content with this hash, as JSON values."""
        signed = self._key.sign(_message(content_sha256))
        return {"algorithm": ALGORITHM, "key": self.public_hex, "signature": signed.hex()}


def write_key_pair(out: str | Path) -> tuple[Path, Path]:
    """Makes a new pair: OUT.key (private, readable for its owner alone) and OUT.pub. Raises
    OutputError when one is there already, MissingExtraError without cryptography.
    """
    from_library = _ed25519()
    from cryptography.hazmat.primitives import serialization as form

    key = from_library.Ed25519PrivateKey.generate()
    pem = form.Encoding.PEM
    private = key.private_bytes(pem, form.PrivateFormat.PKCS8, form.NoEncryption())
    public = key.public_key().public_bytes(pem, form.PublicFormat.SubjectPublicKeyInfo)
    places = Path(f"{out}.key"), Path(f"{out}{PUBLIC_SUFFIX}")
    for place in places:
        if place.exists():  # never overwritten: a lost key cannot be had again
            raise OutputError(f"{place} exists already; choose another --out")
    for place, content, mode in zip(places, (private, public), (0o600, 0o644), strict=True):
        _write_new(place, content, mode)
    return places


def _write_new(path: Path, content: bytes, mode: int) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error


def _key_files(place: Path) -> list[Path]:
    return sorted(place.glob(f"*{PUBLIC_SUFFIX}")) if place.is_dir() else [place]


def _public_keys(path: Path) -> list[bytes]:
    """The raw keys in a PEM file."""
    public = _ed25519().Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        blocks = path.read_text(encoding="ascii").split(_BEGIN)[1:]
        keys = [
            load_pem_public_key((_BEGIN + block.partition(_END)[0] + _END).encode())
            for block in blocks
        ]
    except OSError as error:
        raise SignatureError(f"{path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise SignatureError(f"{path} is no file of public keys: {error}") from error
    if not keys or not all(isinstance(key, public) for key in keys):
        raise SignatureError(f"{path} holds no Ed25519 public key, or one of another kind")
    return [key.public_bytes_raw() for key in keys if isinstance(key, public)]


def _parts(signature: Any) -> tuple[bytes, bytes]:
    """Key and signature of a file's entry, each of its fixed length."""
    try:
        entry = read_value(signature)
        key, signed = bytes.fromhex(entry["key"]), bytes.fromhex(entry["signature"])
        if (entry["algorithm"], len(key), len(signed)) != (ALGORITHM, 32, 64):
            raise ValueError("not Ed25519")
    except (ValueError, KeyError, TypeError) as error:
        raise SignatureError(f"has a signature that cannot be read: {error}") from error
    return key, signed


def _message(content_sha256: str) -> bytes:
    return _CONTEXT + content_sha256.encode("ascii")


def _public(key: bytes) -> Ed25519PublicKey:
    loaded: Ed25519PublicKey = _ed25519().Ed25519PublicKey.from_public_bytes(key)
    return loaded


def _ed25519() -> Any:
    """cryptography's module, imported only where a key is used."""
    try:
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            "signatures need the package cryptography; type: pip install 'edgeprefix[sign]'"
        ) from error
    return ed25519
