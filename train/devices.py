"""The device that a base is trained on."""

from __future__ import annotations

import os

import torch

from edgeprefix.runtime.errors import TrainingError


def choose_device(name: str) -> torch.device:
    """A device by its name; "auto" is this process's GPU if there is one, else the CPU.

    Raises TrainingError, listing what there is, for one that this machine does not have.
    """
    if name == "auto":
        cuda = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        return torch.device(cuda if torch.cuda.is_available() else "cpu")
    there = _devices()
    if name not in {*there, *(device.removesuffix(":0") for device in there)}:
        raise TrainingError(
            f"device {name!r} is not on this machine; choose auto, {', '.join(there)}"
        )
    return torch.device(name)


def _devices() -> list[str]:
    """The CPU, then every accelerator by its number."""
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if accelerator is None:
        return ["cpu"]
    return ["cpu", *(f"{accelerator.type}:{n}" for n in range(torch.accelerator.device_count()))]
