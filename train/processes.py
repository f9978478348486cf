"""Several processes on one run: `accelerate launch -m edgeprefix.cli.root train …`, or
torchrun.

Every process holds the frozen base and takes its share of each batch's rows; the prefix's
gradients, which are small, are summed over all of them, so that every process makes the same
update. The first process writes the files.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

Row = TypeVar("Row")


@dataclass(frozen=True)
class Processes:
    """Which of how many processes this is; `rank` counts from 0."""

    rank: int = 0
    count: int = 1

    @property
    def main(self) -> bool:
        """Whether this process writes files and talks to the user."""
        return self.rank == 0

    def share(self, rows: Sequence[Row]) -> Sequence[Row]:
        """This process' part of a batch's rows; give them in order of length, so that every process
        gets some of each.
        """
        return rows[self.rank :: self.count]

    def sum_in_place(self, tensors: Sequence[Tensor]) -> None:
        """Sums each tensor over all processes."""
        if self.count == 1:
            return
        flat = torch.cat([tensor.flatten().float() for tensor in tensors])
        torch.distributed.all_reduce(flat)
        at = 0
        for tensor in tensors:
            tensor.copy_(flat[at : at + tensor.numel()].view_as(tensor))
            at += tensor.numel()

    def any(self, flag: bool, device: torch.device) -> bool:
        """Whether the flag is set in any process."""
        told = torch.tensor([float(flag)], device=device)
        self.sum_in_place([told])
        return bool(told.item() > 0)

    def wait(self) -> None:
        """Until all processes have come this far."""
        if self.count > 1:
            torch.distributed.barrier()


def join_processes() -> Processes:
    """The processes that a launcher started together; just this one without a launcher."""
    if int(os.environ.get("WORLD_SIZE", "1")) <= 1:
        return Processes()
    from accelerate import PartialState

    state = PartialState(cpu=not torch.cuda.is_available())
    return Processes(state.process_index, state.num_processes)
