"""Progress where there is no terminal (a log file, CI): a line every few seconds and at every
validation.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from edgeprefix.train.loop import Progress

_EVERY_S = 10.0


class ProgressLines:
    """Says lines such as `step 40/600 · loss 1.532 · validation loss 1.671 (best at 25) · 3,417
    tokens/s · 4:10 left`.

    `say` gets each line; `clock` gives seconds.
    """

    def __init__(
        self, say: Callable[[str], None], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._say = say
        self._clock = clock
        self._next = clock()  # the first step is told at once: it shows that training goes
        self._validated: tuple[int, int] | None = None

    def step(self, step: Progress) -> None:
        """Told of every step; says it when the time has come, at validations, and at the end."""
        validated = None if step.validated_step is None else (step.steps, step.validated_step)
        due = validated != self._validated or step.step == step.steps
        self._validated = validated
        self._say_when(due, f"step {step.step}/{step.steps} · {step_facts(step)}")

    def teacher(self, done: int, count: int) -> None:
        """Told of the teacher's answers; says some of them."""
        self._say_when(done == count, f"teacher {done}/{count}")

    def measured(self, what: str, loss: float) -> None:
        """Told of every loss that start and rate are chosen by; says some of them."""
        self._say_when(False, f"measuring start and rate · {what} {loss:.3f}")

    def _say_when(self, due: bool, line: str) -> None:
        now = self._clock()
        if due or now >= self._next:
            self._next = now + _EVERY_S
            self._say(line)


def step_facts(step: Progress) -> str:
    """Loss, latest validation, speed and time left."""
    validation = (
        ""
        if step.metric is None
        else f" · validation {step.metric_name} {step.metric:.3f} (best at {step.best_step})"
    )
    return (
        f"loss {step.loss:.3f}{validation} · {step.tokens_per_s:,.0f} tokens/s · "
        f"{duration(step.seconds_left)} left"
    )


def duration(seconds: float) -> str:
    """Seconds as 4:07 or 1:02:45."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
