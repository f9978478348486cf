"""Continuous batching: one thread that owns graph and cache, and lets requests join and leave
between steps.

Each round feeds at most one chunk's worth of prompts, then decodes all active lanes in one run, so
that a long prompt slows the others down but never stops them. Active lanes stand in the slots 0 …
n-1: when one leaves, a newcomer takes its slot or the last lane moves there, so idle slots cost
nothing. A long prompt is fed in the last slot until it is whole.
"""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from edgeprefix.runtime.decoding.decoder import SlotDecoder
from edgeprefix.runtime.errors import (
    EdgePrefixError,
    EngineClosedError,
    QueueFullError,
    RequestError,
    RequestInterrupted,
)
from edgeprefix.runtime.scheduling.waiting import WaitingLine
from edgeprefix.runtime.work.callbacks import Callbacks
from edgeprefix.runtime.work.process_lock import require_process
from edgeprefix.runtime.work.slot import Logits, Slot
from edgeprefix.runtime.work.ticket import Ticket
from edgeprefix.runtime.work.work import Generation, Start, Work

logger = logging.getLogger(__name__)

# Of a prompt, fed between two decode steps. More keeps the others waiting longer; fewer use the
# matrix kernels less well.
CHUNK_TOKENS = 128
ENGINE_THREAD = "edgeprefix-engine"
"""Name of the thread of each open engine."""


class Occupancy(NamedTuple):
    """How busy an engine is."""

    running: int
    """Sequences that decode or are being fed."""
    waiting: int
    """Requests that wait for a slot."""


@dataclass(slots=True, eq=False)
class Lane:
    """One sequence in the batch."""

    generation: Generation
    number: int
    """Which of its generation's lanes it is."""
    shared: int
    """Positions that are the same in all of its generation's lanes: prefix and prompt."""
    length: int
    """Positions of its slot in use."""
    token: int
    """Chosen, but not yet in the cache."""


@dataclass(slots=True, eq=False)
class Filling:
    """Work whose tokens are being fed."""

    work: Work
    slot: Slot
    steps: Generator[int, None, Start | None]
    cost: int
    """Tokens that its next step feeds."""


class Scheduler:
    """Runs work over a decoder. `submit` and `close` may be called from any thread."""

    def __init__(
        self, decoder: SlotDecoder, *, max_waiting: int = 256, chunk_tokens: int = CHUNK_TOKENS
    ) -> None:
        self._decoder, self._cache = decoder, decoder.cache
        self._chunk, self._max_waiting = chunk_tokens, max_waiting
        self._lanes: list[Lane | None] = [None] * decoder.slots
        self._filling: Filling | None = None
        self._waiting = WaitingLine()
        self.callbacks = Callbacks()
        """Where callers' own code runs."""
        self._changed = threading.Condition()
        self._closing = False
        self._give_up = False  # at close: cancel what runs
        self._cancelled = False  # somebody did, since the line was last looked through
        self._next_deadline = math.inf  # of those who wait
        self._process = os.getpid()
        self._thread = threading.Thread(target=self._loop, name=ENGINE_THREAD, daemon=True)
        self._thread.start()

    # The callers' side ----------------------------------------------------------------------------

    def submit(self, work: Work, *, wait: bool = False) -> None:
        """Puts work into the line. With `wait` it blocks while the line is full, for as long as the
        work's ticket has time.

        Raises QueueFullError, EngineClosedError, RequestTimeout.
        """
        self.require_open()
        with self._changed:
            if wait:
                self._wait_for_room(work.ticket)
            self.require_open()
            if len(self._waiting) >= self._max_waiting:
                raise QueueFullError(
                    f"{self._max_waiting} requests wait already; try again later, or load the "
                    "engine with a larger max_waiting"
                )
            work.ticket.attach(self._wake, self._thread.ident)
            self._waiting.put(work)
            self._next_deadline = min(self._next_deadline, work.ticket.deadline or math.inf)
            self._changed.notify_all()

    def _wait_for_room(self, ticket: Ticket[Any]) -> None:
        if threading.current_thread() is self._thread:
            raise RequestError("the engine's own thread cannot wait for room in the line")
        while len(self._waiting) >= self._max_waiting and not self._closing:
            now = time.perf_counter()
            if (error := ticket.overdue(now)) is not None:
                raise error
            self._changed.wait(None if ticket.deadline is None else ticket.deadline - now)

    @property
    def in_its_process(self) -> bool:
        """Whether its thread is in this process, not in the one that this one was forked from."""
        return os.getpid() == self._process

    def require_open(self) -> None:
        """Raises EngineClosedError after `close`, and in a forked process."""
        require_process(self._process)
        if self._closing:
            raise EngineClosedError("the engine is closed; load it again")

    def stop_taking(self) -> None:
        """From now on `submit` raises EngineClosedError; the rest goes on until `close`."""
        with self._changed:
            self._closing = True

    def close(self, *, finish: bool = False) -> None:
        """Ends the thread; what runs or waits is finished first, or fails."""
        if not self.in_its_process:
            return
        with self._changed:
            self._closing = True
            self._give_up = self._give_up or not finish
            self._changed.notify_all()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    @property
    def occupancy(self) -> Occupancy:
        """How busy it is at this moment."""
        running = sum(lane is not None for lane in self._lanes) + (self._filling is not None)
        return Occupancy(running, len(self._waiting))

    def _wake(self) -> None:
        with self._changed:
            self._cancelled = True
            self._changed.notify_all()

    # The engine's thread --------------------------------------------------------------------------

    def _loop(self) -> None:
        while self._wait_for_work():
            try:
                self._round()
            except BaseException as error:  # whatever it is: who runs is told, the others go on
                self._fail_running(error)
                logger.exception("the engine's round failed")
        self._fail_everything(
            EngineClosedError("the engine was closed before this request finished")
        )
        self.callbacks.close()
        del self._decoder, self._cache  # who keeps a closed engine does not keep its memory

    def _wait_for_work(self) -> bool:
        """Blocks until there is something to do; False when the thread should end."""
        with self._changed:
            while not (self._busy() or len(self._waiting) or self._closing):
                self._changed.wait()
            return not self._give_up and (self._busy() or len(self._waiting) > 0)

    def _busy(self) -> bool:
        return self._filling is not None or any(self._lanes)

    def _round(self) -> None:
        self._drop_overdue()
        self._feed()
        self._compact()
        self._decode()

    def _drop_overdue(self) -> None:
        """Ends what was cancelled or took too long."""
        now = time.perf_counter()
        for generation in dict.fromkeys(lane.generation for lane in self._lanes if lane):
            if error := generation.ticket.overdue(now):
                self._interrupt(generation, error)
        if self._filling is not None and (error := self._filling.work.ticket.overdue(now)):
            self._fail(self._filling.work, error)
        if self._cancelled or now >= self._next_deadline:
            self._drop_waiting(now)

    def _drop_waiting(self, now: float) -> None:
        with self._changed:
            self._cancelled = False
            late = [(work, error) for work in self._waiting if (error := work.ticket.overdue(now))]
            for work, _ in late:
                self._waiting.remove(work)
            self._next_deadline = min(
                (work.ticket.deadline or math.inf for work in self._waiting), default=math.inf
            )
            self._changed.notify_all()
        for work, error in late:
            work.ticket.fail(error)

    # Feeding prompts ------------------------------------------------------------------------------

    def _feed(self) -> None:
        """Feeds prompts, up to one chunk's worth of tokens."""
        budget = self._chunk
        while self._filling is not None or self._start_next(budget):
            filling = self._filling
            if filling is None:  # the next one failed to start
                continue
            if filling.cost > budget:
                return
            budget -= filling.cost
            try:
                filling.cost = next(filling.steps)
            except StopIteration as stop:
                self._filling = None
                self._join(filling, stop.value)
            except BaseException as error:
                self._fail(filling.work, _logged(error))

    def _start_next(self, budget: int) -> bool:
        """Gives the next in line a slot, if there is one."""
        with self._changed:
            work = self._waiting.take(self._lanes.count(None))
            if work is None:
                return False
            self._changed.notify_all()
        if work.feed_length > budget:
            # Its slot must stay clear of the batch for several rounds: the last one does
            self._compact()
            index = len(self._lanes) - 1
        else:
            index = self._lanes.index(None)
        try:
            self._filling = self._filled(work, index)
        except BaseException as error:  # in no lane and no line any more: nobody else would tell
            self._fail(work, _logged(error))
        return True

    def _filled(self, work: Work, index: int) -> Filling:
        """Work in its slot: the prefix is written, the first tokens are about to be fed."""
        prefix = work.prefix
        if prefix is not None:
            self._cache.write(index, prefix.packed)
        length = 0 if prefix is None else prefix.length
        slot = Slot(self._decoder, index, self._chunk, length, free=self._lanes.count(None))
        steps = work.run(slot)
        return Filling(work, slot, steps, next(steps))

    def _join(self, filling: Filling, start: Start | None) -> None:
        """Its lanes join the batch, the first in the slot it was fed in, the others as copies."""
        if start is None:
            return
        length, source = filling.slot.length, filling.slot.index
        for number, token in enumerate(start.turn.tokens):
            if token is None:
                continue
            index = source if self._lanes[source] is None else self._lanes.index(None)
            if index != source:
                self._cache.copy(source, index, start=0, stop=length)
            self._lanes[index] = Lane(start.generation, number, length, length, token)

    # Decoding -------------------------------------------------------------------------------------

    def _compact(self) -> None:
        """Moves lanes from the end into holes, so that the active ones are 0 … n-1."""
        lanes = self._lanes
        hole, last = 0, len(lanes) - 1
        while True:
            while hole < len(lanes) and lanes[hole] is not None:
                hole += 1
            while last >= 0 and lanes[last] is None:
                last -= 1
            if hole >= last:
                return
            lane = lanes[last]
            assert lane is not None
            self._cache.copy(last, hole, start=0, stop=lane.length)
            lanes[hole], lanes[last] = lane, None

    def _decode(self) -> None:
        """One token for every active lane."""
        lanes = [
            lane for lane in self._lanes if lane is not None
        ]  # compact: lane i stands in slot i
        if not lanes:
            return
        try:
            if len(lanes) == 1 and (draft := lanes[0].generation.draft()):
                self._speculate(lanes[0], draft)
                return
            logits = self._decoder.step(
                [lane.token for lane in lanes], [lane.length + 1 for lane in lanes]
            )
        except EdgePrefixError as error:
            self._fail_running(error)
            return
        groups: dict[int, list[int]] = {}
        for slot, lane in enumerate(lanes):
            lane.length += 1
            groups.setdefault(id(lane.generation), []).append(slot)
        for members in groups.values():
            members.sort(key=lambda slot: lanes[slot].number)
            first = members[0]
            rows = logits[first : first + 1] if len(members) == 1 else logits[members]
            self._advance(lanes[first].generation, members, rows)

    def _advance(self, generation: Generation, members: list[int], logits: Logits) -> None:
        """Shows a generation the logits of its lanes, which stand in the slots `members`."""
        try:
            turn = generation.advance(logits)
        except BaseException as error:
            self._fail(generation, _logged(error))
            return
        if turn.parents is not None:
            self._inherit(members, turn.parents)
        for place, (slot, token) in enumerate(zip(members, turn.tokens, strict=True)):
            lane = self._lanes[slot]
            if token is None or lane is None:
                self._lanes[slot] = None
                continue
            lane.token = token
            if turn.rewind is not None and turn.rewind[place]:
                lane.length = lane.shared

    def _inherit(self, members: list[int], parents: Sequence[int]) -> None:
        """Beam search: lane i takes over what lane parents[i] has behind the common prompt."""
        moves = [
            (members[parent], slot)
            for slot, parent in zip(members, parents, strict=True)
            if members[parent] != slot
        ]
        lane = self._lanes[members[0]]
        if moves and lane is not None:
            sources, targets = zip(*moves, strict=True)
            self._cache.gather(sources, targets, start=lane.shared, stop=lane.length)

    def _speculate(self, lane: Lane, draft: Sequence[int]) -> None:
        """Checks a draft in one run, and takes as many tokens as the base would have chosen."""
        tokens = np.asarray([lane.token, *draft], np.int64)
        logits = self._decoder.feed(0, tokens, start=lane.length)
        for row in range(len(tokens)):
            lane.length += 1
            self._advance(lane.generation, [0], logits[row : row + 1])
            if self._lanes[0] is None or row == len(draft) or lane.token != draft[row]:
                return

    # Failing --------------------------------------------------------------------------------------

    def _interrupt(self, generation: Generation, error: RequestInterrupted) -> None:
        """Ends a generation early; its caller gets what there is."""
        error.partial = generation.partial(error.reason)
        self._fail(generation, error)

    def _fail(self, work: Work, error: BaseException) -> None:
        """Takes work out of batch or slot and tells its caller."""
        self._lanes = [
            None if lane is not None and lane.generation is work else lane for lane in self._lanes
        ]
        if self._filling is not None and self._filling.work is work:
            self._filling.steps.close()
            self._filling = None
        work.ticket.fail(error)

    def _fail_running(self, error: BaseException) -> None:
        running: list[Work] = [lane.generation for lane in self._lanes if lane is not None]
        if self._filling is not None:
            running.append(self._filling.work)
        for work in running:
            self._fail(work, error)

    def _fail_everything(self, error: BaseException) -> None:
        self._fail_running(error)
        with self._changed:
            waiting = list(self._waiting)
            self._waiting = WaitingLine()
            self._changed.notify_all()
        for work in waiting:
            work.ticket.fail(error)


def _logged(error: BaseException) -> BaseException:
    """What is no refusal of ours is a bug: its request is told, and the log keeps the trace."""
    if not isinstance(error, EdgePrefixError):
        logger.error("a request failed unexpectedly", exc_info=error)
    return error
