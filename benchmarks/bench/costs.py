"""What a cell will cost, guessed from the probe's few steps, so that a budget can be planned.
Guesses err on the long side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgeprefix.bench.budget import Candidate
from edgeprefix.bench.cells import Cell, slack
from edgeprefix.bench.stopwatch import LEAST_ROUND_S

_LONG = 2048  # tokens of context that double the cost of a token
_COLD_ROUNDS, _THREAD_ROUNDS = 5, 5


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Seconds of a prompt's token, of a step of one row and of all rows, and of a start until the
    first token.
    """

    token_s: float
    step_s: float
    full_step_s: float
    start_s: float
    max_batch: int
    new_tokens: int
    cores: int

    def candidate(self, cell: Cell) -> Candidate:
        """A cell with its price."""
        if cell.kind == "cold_start":
            return Candidate(
                cell, self.start_s + self.new_tokens * self.step_s, rounds_most=_COLD_ROUNDS
            )
        if cell.kind == "threads":
            slower = max(1.0, self.cores / (cell.threads or 1))
            seconds = self._decode(1, 128) + self._decode(cell.batch or 1, 128) + self._prefill(128)
            return Candidate(
                cell,
                max(slower * seconds, 3 * LEAST_ROUND_S),
                setup_s=self.start_s,
                rounds_most=_THREAD_ROUNDS,
            )
        return Candidate(cell, max(self._round_s(cell), LEAST_ROUND_S))

    def candidates(self, cells: Sequence[Cell]) -> list[Candidate]:
        """In the same order."""
        return [self.candidate(cell) for cell in cells]

    def _round_s(self, cell: Cell) -> float:
        if cell.kind == "prefill":
            return self._prefill(cell.prompt_tokens or 1)
        if cell.kind == "decode":
            return self._decode(cell.batch or 1, cell.context or 0)
        if cell.kind == "mixed":
            return 2 * self._decode(cell.batch or 1, cell.prefix_positions or 0)
        if cell.kind == "instead_of_text":
            return self._prefill(cell.prompt_tokens or 1) + self._prefill(
                (cell.prompt_tokens or 1) + (cell.prefix_positions or 0)
            )
        return LEAST_ROUND_S

    def _prefill(self, tokens: int) -> float:
        return tokens * self.token_s * (1 + tokens / _LONG)

    def _decode(self, batch: int, context: int) -> float:
        share = (batch - 1) / max(self.max_batch - 1, 1)
        step = self.step_s + share * max(self.full_step_s - self.step_s, 0)
        steps = self.new_tokens + slack(batch)
        return steps * step * (1 + context / _LONG) + batch * 8 * self.token_s
