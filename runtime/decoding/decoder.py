"""One step of the graph over the cache: the lowest layer, which knows token ids, slots and lengths
but no text.

Two shapes of run exist. `feed` puts new tokens of ONE sequence into its slot (prompt, chunk of a
prompt, label). `step` decodes the first n slots, one token each, every row with a length of its
own. For each of them the bindings to the cache are made once and kept; only small arrays change, in
place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from edgeprefix.runtime.decoding.cache import SlotMemory, Slots, bind_address
from edgeprefix.runtime.decoding.quiet_ort import ort
from edgeprefix.runtime.decoding.session import Graph
from edgeprefix.runtime.errors import EdgePrefixError

Logits = npt.NDArray[np.float32]


class SlotDecoder(Protocol):
    """What scheduler and engine need of a graph over a cache, whatever kind of graph it is."""

    slots: int
    """Sequences that it has room for."""
    capacity: int
    """Positions of each."""

    @property
    def cache(self) -> SlotMemory:
        """Where the slots lie."""
        ...

    def step(self, tokens: Sequence[int], lengths: Sequence[int]) -> Logits:
        """Decodes slots 0 … n-1, one token each; gives logits [n, V], valid until the next call."""
        ...

    def feed(
        self,
        slot: int,
        tokens: npt.NDArray[np.int64],
        *,
        start: int,
        wanted: Sequence[int] | None = None,
    ) -> Logits:
        """Puts new tokens of one sequence into its slot; gives logits [N, V] of the wanted ones."""
        ...


class Decoder:
    """Runs edgeprefix's own graph over a cache that it works on in place.

    Quantised kernels take rows two by two and round a last odd one otherwise. `steady` runs an idle
    row beside an odd one, so that a row's logits do not depend on how many others there are; the
    cache's last slot and last position are kept for that.

    >>> cache = Cache(graph.layers, batch=2, capacity=64, dtype=graph.cache_dtype)  # doctest: +SKIP
    >>> decoder = Decoder(graph, cache)  # doctest: +SKIP
    >>> logits = decoder.feed(0, prompt_ids, start=0)  # doctest: +SKIP
    >>> logits = decoder.step([int(logits[-1].argmax())], [len(prompt_ids) + 1])  # doctest: +SKIP
    """

    def __init__(self, graph: Graph, cache: SlotMemory, *, steady: bool = False) -> None:
        self.graph, self.cache, self._steady = graph, cache, steady
        self.slots = cache.batch - steady
        """Sequences that it has room for."""
        self.capacity = cache.capacity - steady
        """Positions of each."""
        self._in_place = graph.on_cpu  # changed arrays are seen without binding them again
        self._keeps = graph.keeps_bindings
        self._tokens = np.zeros((cache.batch, 1), np.int64)  # [B, 1]
        self._lengths = np.zeros(cache.batch, np.int32)  # [B]
        self._rows = np.arange(cache.batch, dtype=np.int64)
        self._logits = np.zeros((cache.batch, graph.vocabulary), graph.logits_dtype)  # [B, V]
        self._length = np.zeros(1, np.int32)  # of the sequence that is being fed
        self._steps: dict[int, ort.IOBinding] = {}
        self._feeds: dict[int, ort.IOBinding] = {}

    def step(self, tokens: Sequence[int], lengths: Sequence[int]) -> Logits:
        """Decodes slots 0 … n-1: `tokens` are their newest tokens, `lengths` count those in.

        Returns logits [n, V], overwritten by the next call.
        """
        n = rows = len(tokens)
        self._tokens[:n, 0] = tokens
        self._lengths[:n] = lengths
        if self._steady and n % 2:
            rows = n + 1
            # The kept position, so that a prompt being fed there is not touched
            self._lengths[n] = self.cache.capacity
        binding = (self._keeps and self._steps.get(rows)) or self._bind_step(rows)
        if not self._in_place:
            self._bind_small(binding, rows)
        run_bound(self.graph.session, binding)
        return (
            self._logits[:n]
            if self._logits.dtype == np.float32
            else self._logits[:n].astype(np.float32)
        )

    def feed(
        self,
        slot: int,
        tokens: npt.NDArray[np.int64],
        *,
        start: int,
        wanted: Sequence[int] | None = None,
    ) -> Logits:
        """Puts `tokens` into a slot at positions `start` …, and returns logits [N, V] of the
        `wanted` ones (indices into `tokens`; all when None; none may be wanted).
        """
        count = len(tokens)
        rows = np.arange(count, dtype=np.int64) if wanted is None else np.asarray(wanted, np.int64)
        logits = np.empty((len(rows), self.graph.vocabulary), self.graph.logits_dtype)
        ids = np.ascontiguousarray(tokens, np.int64).reshape(1, count)
        self._length[0] = start + count
        binding = (self._keeps and self._feeds.get(slot)) or self._bind_feed(slot)
        bind_small_input(binding, "input_ids", ids)
        bind_small_input(binding, "total_lengths", self._length)
        bind_small_input(binding, "logit_rows", rows)
        bind_small_output(binding, "logits", logits)
        run_bound(self.graph.session, binding)
        return logits.astype(np.float32, copy=False)

    def _bind_step(self, n: int) -> ort.IOBinding:
        binding = self.graph.session.io_binding()
        self.cache.bind(binding, Slots(0, n))
        self._bind_small(binding, n)
        bind_small_output(binding, "logits", self._logits[:n])
        self._steps[n] = binding
        return binding

    def _bind_small(self, binding: ort.IOBinding, n: int) -> None:
        """On a device, binding is what copies these arrays there, so it is done for every step."""
        bind_small_input(binding, "input_ids", self._tokens[:n])
        bind_small_input(binding, "total_lengths", self._lengths[:n])
        bind_small_input(binding, "logit_rows", self._rows[:n])

    def _bind_feed(self, slot: int) -> ort.IOBinding:
        binding = self.graph.session.io_binding()
        self.cache.bind(binding, Slots(slot, slot + 1))
        self._feeds[slot] = binding
        return binding


def run_bound(session: ort.InferenceSession, binding: ort.IOBinding) -> None:
    """Runs a graph over what was bound. Raises EdgePrefixError with what ONNX Runtime says."""
    try:
        session.run_with_iobinding(binding)
    except Exception as error:  # onnxruntime's exceptions share no base class but Exception
        text = str(error).strip().replace("\n", " ")
        raise EdgePrefixError(
            f"the graph failed in a step: {text}; the engine goes on serving"
        ) from error


def bind_small_input(binding: ort.IOBinding, name: str, array: npt.NDArray[Any]) -> None:
    """`array` lies in main memory and must outlive the run."""
    bind_address(binding.bind_input, name, "cpu", array.dtype, array.shape, array.ctypes.data)


def bind_small_output(binding: ort.IOBinding, name: str, array: npt.NDArray[Any]) -> None:
    """As `bind_small_input`, for what the graph writes."""
    bind_address(binding.bind_output, name, "cpu", array.dtype, array.shape, array.ctypes.data)
