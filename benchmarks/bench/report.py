"""The report of a bench: a JSON file with a kind and a version, specified in docs/bench.md, that
`bench compare` reads.

At its top stand the few numbers that most people want, under plain names; below them everything,
cell by cell.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgeprefix.bench.cells import Cell, nearest
from edgeprefix.bench.spread import Number
from edgeprefix.runtime.contracts.files import write_atomic
from edgeprefix.runtime.errors import FileFormatError

KIND = "edgeprefix-bench"
FORMAT_VERSION = 1


@dataclass(frozen=True)
class Measurement:
    """What was found for a cell; `limit_tokens_per_s` is what memory bandwidth allows (None:
    unknown, or no decoding).
    """

    cell: Cell
    numbers: Mapping[str, Number]
    limit_tokens_per_s: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        numbers = {name: number.to_json() for name, number in self.numbers.items()}
        return {
            "cell": self.cell.to_json(),
            "limit_tokens_per_s": self.limit_tokens_per_s,
            "numbers": numbers,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Measurement:
        """Reads `to_json`'s form. Raises KeyError, TypeError or ValueError."""
        numbers = {name: Number.from_json(number) for name, number in data["numbers"].items()}
        return cls(Cell.from_json(data["cell"]), numbers, data["limit_tokens_per_s"])


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything about one bench."""

    created: str
    complete: bool
    """False when it was interrupted."""
    bundle: Mapping[str, Any]
    settings: Mapping[str, Any]
    machine: Mapping[str, Any]
    versions: Mapping[str, str]
    bandwidth: Mapping[str, Number]
    """Bytes/s: `memory`, `memory_one_thread`, and `weights` over a working set of the weights'
    size; empty on a device.
    """
    memory: Mapping[str, int | None]
    """Bytes: peaks of the processes, cache, files."""
    circumstances: Mapping[str, Any]
    measurements: tuple[Measurement, ...]
    skipped: tuple[tuple[str, str], ...] = ()
    """(cell, reason) for what was not measured."""
    warnings: tuple[str, ...] = field(default=())

    def find(self, kind: str, **sizes: int) -> Measurement | None:
        """The first measurement of a kind with these sizes."""
        for one in self.measurements:
            if one.cell.kind == kind and sizes.items() <= one.cell.sizes.items():
                return one
        return None

    def of(self, kind: str) -> list[Measurement]:
        """All measurements of a kind, by their sizes."""
        return sorted(
            (one for one in self.measurements if one.cell.kind == kind),
            key=lambda one: [*one.cell.sizes.values()],
        )

    @property
    def first_token(self) -> Measurement | None:
        """The prompt length that is shown first: the one nearest to 128."""
        found = {one.cell.prompt_tokens or 0: one for one in self.of("prefill")}
        return found[nearest(list(found), 128)] if found else None

    @property
    def decode(self) -> Measurement | None:
        """The decoding that is shown first: the smallest batch, the context nearest to 128."""
        return self._decode(min)

    @property
    def decode_full(self) -> Measurement | None:
        """The same with the largest batch."""
        return self._decode(max)

    def _decode(self, choose: Any) -> Measurement | None:
        found = self.of("decode")
        if not found:
            return None
        batch = choose(one.cell.batch or 1 for one in found)
        rows = {one.cell.context or 0: one for one in found if one.cell.batch == batch}
        return rows[nearest(list(rows), 128)]

    def to_json(self) -> dict[str, Any]:
        """Plain values: kind, version and headline first."""
        return {
            "kind": KIND,
            "format_version": FORMAT_VERSION,
            "created": self.created,
            "complete": self.complete,
            **self.headline(),
            "warnings": list(self.warnings),
            "bundle": dict(self.bundle),
            "settings": dict(self.settings),
            "machine": dict(self.machine),
            "versions": dict(self.versions),
            "bandwidth": {name: number.to_json() for name, number in self.bandwidth.items()},
            "memory": dict(self.memory),
            "circumstances": dict(self.circumstances),
            "measurements": [one.to_json() for one in self.measurements],
            "skipped": [{"cell": cell, "reason": reason} for cell, reason in self.skipped],
        }

    def headline(self) -> dict[str, Any]:
        """The numbers at the top of the file; those that were not measured are left out."""
        found: dict[str, Any] = {}
        if self.decode is not None:
            found["decode_tokens_per_s"] = self.decode.numbers["tokens_per_s"].value
            found["token_ms"] = {
                f"p{share}": self.decode.numbers[f"token_ms_p{share}"].value
                for share in (50, 90, 99)
            }
        if self.decode_full is not None:
            found["batch_tokens_per_s"] = self.decode_full.numbers["tokens_per_s"].value
        if self.first_token is not None:
            first = self.first_token.numbers["first_token_ms"]
            found["first_token_ms"] = {"p50": first.value, "best": first.least, "worst": first.most}
        if cold := self.find("cold_start"):
            found["load_ms"] = cold.numbers["load_ms"].value
            found["cold_start_ms"] = cold.numbers["total_ms"].value
        if prefix := self.find("prefix"):
            found["swap_ms"] = {
                f"p{share}": prefix.numbers[f"swap_ms_p{share}"].value for share in (50, 99)
            }
        return found | {"peak_memory_bytes": self.memory.get("peak")}

    def save(self, path: Path) -> None:
        """Writes the JSON file atomically. Raises OutputError."""
        write_atomic(
            path, (json.dumps(self.to_json(), indent=1, ensure_ascii=False) + "\n").encode()
        )

    @classmethod
    def load(cls, path: Path) -> Report:
        """Reads a report. Raises FileFormatError when it is none, or of an unknown version."""
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise FileFormatError(
                f"{path} does not exist; make it with `edgeprefix bench BUNDLE --json {path}`"
            ) from error
        except (OSError, ValueError) as error:
            raise FileFormatError(
                f"{path} cannot be read as JSON: {error}; make it anew with `edgeprefix bench`"
            ) from error
        return cls.from_json(data, source=str(path))

    @classmethod
    def from_json(cls, data: Any, *, source: str = "report") -> Report:
        """Checks and converts. Raises FileFormatError."""
        kind = data.get("kind") if isinstance(data, dict) else type(data).__name__
        if kind != KIND:
            raise FileFormatError(
                f"{source} is of kind {kind!r}, expected {KIND!r}; make one with `edgeprefix "
                "bench BUNDLE --json FILE`"
            )
        if data.get("format_version") != FORMAT_VERSION:
            raise FileFormatError(
                f"{source}: format version {data.get('format_version')!r} is unknown (this "
                f"edgeprefix reads {FORMAT_VERSION}); "
                "measure again with this version"
            )
        try:
            return cls(**_fields(data))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise FileFormatError(
                f"{source} is damaged: {error!r}; measure again with `edgeprefix bench`"
            ) from error


def _fields(data: Mapping[str, Any]) -> dict[str, Any]:
    plain = (
        "created",
        "complete",
        "bundle",
        "settings",
        "machine",
        "versions",
        "memory",
        "circumstances",
    )
    skipped: Sequence[Mapping[str, str]] = data["skipped"]
    return {name: data[name] for name in plain} | {
        "bandwidth": {name: Number.from_json(number) for name, number in data["bandwidth"].items()},
        "measurements": tuple(Measurement.from_json(one) for one in data["measurements"]),
        "skipped": tuple((entry["cell"], entry["reason"]) for entry in skipped),
        "warnings": tuple(data["warnings"]),
    }
