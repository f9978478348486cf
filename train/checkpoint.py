"""RUN/last.safetensors: everything that is needed to go on bit-exactly, in one atomic file without
pickle.

Batches and dropout are functions of (seed, step), so there are no random states to keep: what the
prefix was made from, parameters, the optimiser's moments and the loop's counters are all. The
resolved settings and the facts about base and data are stored with them, and a resume with other
ones is refused, naming the difference.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from edgeprefix.runtime.errors import TrainingError

_VERSION = "2"  # 1 had no start


@dataclass(kw_only=True)
class Progressed:
    """The loop's counters."""

    step: int = 0
    best_step: int = 0
    best_metric: float | None = None
    best_loss: float | None = None
    validations_without_gain: int = 0
    setbacks: int = 0
    """How often the run went back to its start with a smaller rate (guard.py)."""
    early: list[float] = field(default_factory=list)
    """Training losses of the first steps, which guard.py looks at."""
    tokens: int = 0
    """Tokens that the base has read in training, padding included."""
    seconds: float = 0.0
    """Time spent in training so far, earlier sessions included."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A run between two steps."""

    tensors: Mapping[str, Tensor]
    """Start, parameters and moments by name."""
    progressed: Progressed
    settings: Mapping[str, Any]

    def require_same(self, settings: Mapping[str, Any], path: Path) -> None:
        """Raises TrainingError, naming the differences, when the run had other settings."""
        stored, given = _flat(self.settings), _flat(json.loads(json.dumps(settings)))
        different = [key for key in {*stored, *given} if stored.get(key) != given.get(key)]
        different.sort(key=lambda key: (key.startswith("plan."), key))  # what was asked for first
        if different:
            listed = "; ".join(
                f"{key} was {stored.get(key)!r}, now {given.get(key)!r}" for key in different[:5]
            )
            raise TrainingError(
                f"{path} belongs to another run: {listed}; give the same settings, or --force "
                "instead of --resume to start anew"
            )


def checkpoint_bytes(
    tensors: Mapping[str, Tensor], *, progressed: Progressed, settings: Mapping[str, Any]
) -> bytes:
    """The content of RUN/last.safetensors."""
    metadata = {
        "version": _VERSION,
        "progressed": json.dumps(asdict(progressed)),
        "settings": json.dumps(settings, sort_keys=True),
    }
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return safetensors.torch.save(plain, metadata)


def read_checkpoint(path: Path) -> Checkpoint:
    """Reads RUN/last.safetensors. Raises TrainingError when it is missing, damaged, or of another
    format version.
    """
    anew = "give --force instead of --resume to start anew"
    if not path.exists():
        raise TrainingError(
            f"{path.parent} has no checkpoint to resume from ({path.name}); leave --resume out"
        )
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no mapping)
        version, settings = metadata["version"], json.loads(metadata["settings"])
        progressed = Progressed(**json.loads(metadata["progressed"]))
    except (OSError, KeyError, TypeError, ValueError, safetensors.SafetensorError) as error:
        raise TrainingError(f"{path} cannot be read: {error}; {anew}") from error
    if version != _VERSION:
        raise TrainingError(
            f"{path} has format version {version}, this edgeprefix resumes {_VERSION}; go on with "
            f"the edgeprefix that began the run, or {anew}"
        )
    return Checkpoint(tensors=tensors, progressed=progressed, settings=settings)


def _flat(settings: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Settings of settings by their path, "plan.steps"."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= (
            _flat(value, f"{before}{name}.")
            if isinstance(value, Mapping)
            else {before + name: value}
        )
    return flat
