"""One step of a graph that another exporter made: past handed over, attention mask and positions
computed.

It answers the same calls as `Decoder`, in the same slots and lengths, so that nothing above knows
which of the two it has.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from edgeprefix.runtime.contracts.past_graph import BRANCH, KEPT_LOGITS, MASK, POSITIONS, PastGraph
from edgeprefix.runtime.decoding.decoder import (
    Logits,
    bind_small_input,
    bind_small_output,
    run_bound,
)
from edgeprefix.runtime.decoding.past_memory import HandedMemory, Mask
from edgeprefix.runtime.decoding.session import Graph

Ids = npt.NDArray[np.int64]


class _Rows(NamedTuple):
    """Rows of one run: new tokens [B, S], their slots, and where the first new one goes."""

    tokens: Ids
    slots: Sequence[int]
    starts: Sequence[int]


class PastDecoder:
    """Runs a graph of another exporter over a cache that is handed over.

    `steady` runs every row alone, so that a row's logits do not depend on the others.
    """

    def __init__(
        self, graph: Graph, past: PastGraph, cache: HandedMemory, *, steady: bool = False
    ) -> None:
        self.graph, self.cache = graph, cache
        # What `Decoder` keeps is kept here too
        self.slots, self.capacity = (
            cache.batch - steady,
            cache.capacity - steady,
        )
        self._past, self._memory, self._steady = past, cache, steady
        self._inputs = {node.name: node for node in graph.session.get_inputs()}

    def step(self, tokens: Sequence[int], lengths: Sequence[int]) -> Logits:
        """Decodes slots 0 … n-1 by their newest `tokens`, `lengths` with them: logits [n, V]."""
        logits = np.empty((len(tokens), self.graph.vocabulary), np.float32)
        for slots in self._groups(lengths):
            ids = np.array([[tokens[slot]] for slot in slots], np.int64)
            logits[slots] = self._run(
                _Rows(ids, slots, [lengths[slot] - 1 for slot in slots]), kept=1
            )[:, 0]
        return logits

    def feed(
        self, slot: int, tokens: Ids, *, start: int, wanted: Sequence[int] | None = None
    ) -> Logits:
        """Puts `tokens` into a slot at positions `start` …, and returns logits [N, V] of the
        `wanted` ones (indices into `tokens`; all when None; none may be wanted).
        """
        rows = np.arange(len(tokens)) if wanted is None else np.asarray(wanted, np.int64)
        result = np.empty((len(rows), self.graph.vocabulary), np.float32)
        done = 0
        for piece in self._pieces(tokens, start):
            S = len(piece)
            # Entries of `rows` that this piece answers
            mine = np.flatnonzero((rows >= done) & (rows < done + S))
            kept = S - int((rows[mine] - done).min(initial=S - 1))
            logits = self._run(_Rows(piece[None], [slot], [start + done]), kept=kept)[0]
            result[mine] = logits[
                rows[mine] - done - S
            ]  # counted from the end: a graph may give the last ones only
            done += S
        return result

    def _groups(self, lengths: Sequence[int]) -> Iterator[list[int]]:
        """Slots that may run together."""
        if self._steady:
            yield from ([slot] for slot in range(len(lengths)))
        elif self._past.mixed:
            yield list(range(len(lengths)))
        else:
            for length in sorted(set(lengths)):
                yield [slot for slot, other in enumerate(lengths) if other == length]

    def _pieces(self, tokens: Ids, start: int) -> list[Ids]:
        """What one run takes: everything, or token by token where the graph takes no more behind a
        past.

        A merged graph has a branch of its own for texts without a past, which takes them whole.
        """
        whole = np.ascontiguousarray(tokens, np.int64)
        if self._past.many or (start == 0 and BRANCH in self._past.inputs):
            return [whole]
        return list(whole.reshape(-1, 1))

    def _run(self, rows: _Rows, *, kept: int) -> npt.NDArray[Any]:
        """Runs the graph; gives the logits [B, at least `kept`, V] of the last tokens."""
        B, S = rows.tokens.shape
        binding = self.graph.session.io_binding()
        mask = self._memory.hand(binding, rows.slots, rows.starts, S)
        small = {"input_ids": rows.tokens} | {
            name: self._input(name, rows, mask, kept) for name in self._past.inputs
        }
        given = kept if KEPT_LOGITS in self._past.inputs else S
        logits = np.empty((B, given, self.graph.vocabulary), self.graph.logits_dtype)
        for name, array in small.items():
            bind_small_input(binding, name, array)
        bind_small_output(binding, "logits", logits)
        run_bound(self.graph.session, binding)
        self._memory.take(rows.slots, rows.starts, S)
        return logits

    def _input(self, name: str, rows: _Rows, mask: Mask, kept: int) -> npt.NDArray[Any]:
        """One of the further inputs, in the graph's own type."""
        S = rows.tokens.shape[1]
        values: dict[str, Any] = {
            MASK: mask,
            POSITIONS: np.asarray(rows.starts)[:, None] + np.arange(S)[None],
            BRANCH: [max(rows.starts) > 0],
            KEPT_LOGITS: [kept],
        }
        node = self._inputs[name]
        value = np.ascontiguousarray(values[name], _TYPES[node.type])
        return value if len(node.shape) else value.reshape(())


_TYPES: dict[str, type[np.generic]] = {
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(bool)": np.bool_,
    "tensor(float)": np.float32,
}
