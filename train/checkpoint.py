"""RUN/last.safetensors: everything that is needed to go on bit-exactly, in one atomic file without
pickle.

Batches and dropout are functions of (seed, step), so there are no random states to keep:
parameters, the optimiser's moments and the loop's counters are all. The resolved settings and the
facts about base and data are stored with them, and a resume with other ones is refused, naming the
difference.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from edgeprefix.runtime.errors import TrainingError

CHECKPOINT = "last.safetensors"
_VERSION = "1"


@dataclass(kw_only=True)
class Progressed:
    """The loop's counters."""

    step: int = 0
    best_step: int = 0
    best_metric: float | None = None
    best_loss: float | None = None
    validations_without_gain: int = 0
    tokens: int = 0
    """Tokens that the base has read in training, padding included."""
    seconds: float = 0.0
    """Time spent in training so far, earlier sessions included."""


Checkpoint = tuple[dict[str, Tensor], Progressed]
"""Parameters and moments by name, and the counters that they belong to."""


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


def load_checkpoint(run: Path, *, settings: Mapping[str, Any]) -> Checkpoint:
    """Reads RUN/last.safetensors. Raises TrainingError when it is missing, damaged, or of other
    settings.
    """
    path = run / CHECKPOINT
    if not path.exists():
        raise TrainingError(
            f"{run} has no checkpoint to resume from ({CHECKPOINT}); leave --resume out to start "
            "anew"
        )
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no mapping)
        stored = json.loads(metadata["settings"])
        progressed = Progressed(**json.loads(metadata["progressed"]))
    except (OSError, KeyError, TypeError, ValueError, safetensors.SafetensorError) as error:
        raise TrainingError(
            f"{path} cannot be read: {error}; leave --resume out to start anew"
        ) from error
    _require_same(stored, json.loads(json.dumps(settings)), path)
    return tensors, progressed


def _require_same(stored: Mapping[str, Any], given: Mapping[str, Any], path: Path) -> None:
    stored, given = _flat(stored), _flat(given)
    different = [key for key in sorted({*stored, *given}) if stored.get(key) != given.get(key)]
    if different:
        listed = "; ".join(
            f"{key} was {stored.get(key)!r}, now {given.get(key)!r}" for key in different[:5]
        )
        raise TrainingError(
            f"{path} belongs to another run: {listed}; give the same settings, or leave --resume "
            "out"
        )


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
