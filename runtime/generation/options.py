"""How a text is generated: one frozen dataclass, checked when made, so that the loop need not check
anything.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypedDict

import numpy as np

from edgeprefix.runtime.contracts.task_pack import TaskPack
from edgeprefix.runtime.errors import RequestError

DEFAULT_MAX_NEW_TOKENS = 128
_SAMPLING = ("temperature", "top_k", "top_p", "min_p", "typical_p")


class Settings(TypedDict, total=False):
    """What callers may pass by name: the fields of GenerationOptions, each optional."""

    max_new_tokens: int | None
    min_new_tokens: int
    temperature: float | None
    top_k: int
    top_p: float
    min_p: float
    typical_p: float
    repetition_penalty: float
    presence_penalty: float
    frequency_penalty: float
    no_repeat_ngram: int
    logit_bias: Mapping[int, float]
    banned_words: str | Sequence[str]
    forced_words: str | Sequence[str]
    forced_prefix: str
    stop: str | Sequence[str]
    ignore_end: bool
    seed: int | None
    n: int
    beams: int
    length_penalty: float
    early_stopping: bool | Literal["never"]
    logprobs: int | None
    lookup: int


@dataclass(frozen=True, kw_only=True)
class GenerationOptions:
    """Everything that decides which tokens come out. Raises RequestError for values that make no
    sense.
    """

    max_new_tokens: int | None = None
    """Tokens at most; None: 128, or what the room in the cache allows. A number that does not fit
    is an error.
    """
    min_new_tokens: int = 0
    """The end-of-text token is barred until so many tokens are out."""
    temperature: float | None = None
    """0 is greedy. None: 1 when an option that only sampling knows is given (top_k, top_p, min_p,
    typical_p, n), else 0.
    """
    top_k: int = 0
    """Only the k likeliest tokens; 0 is off."""
    top_p: float = 1.0
    """Only the smallest set of tokens that holds this much probability."""
    min_p: float = 0.0
    """Only tokens at least this fraction as likely as the likeliest."""
    typical_p: float = 1.0
    """Locally typical sampling: tokens nearest to the expected surprise, up to this much
    probability.
    """
    repetition_penalty: float = 1.0
    """Logits of tokens in prompt or text are divided (positive) or multiplied (negative) by it, as
    in CTRL.
    """
    presence_penalty: float = 0.0
    """Subtracted once from tokens that the generated text already has."""
    frequency_penalty: float = 0.0
    """Subtracted as often as the generated text has the token."""
    no_repeat_ngram: int = 0
    """No n-gram of this length comes twice, prompt included; 0 is off."""
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    """Added to the logits of these token ids; -inf bars one."""
    banned_words: tuple[str, ...] = ()
    """Texts that must not appear, each with and without a leading space."""
    forced_words: tuple[str, ...] = ()
    """Texts that must appear: the end is barred until then, and the last tokens are kept for those
    still missing.
    """
    forced_prefix: str = ""
    """The text begins with this."""
    stop: tuple[str, ...] = ()
    """Texts that end the generation and are not part of its result."""
    ignore_end: bool = False
    """Go on after the end-of-text token (for measurements)."""
    seed: int | None = None
    """One seed gives one result; None draws one."""
    n: int = 1
    """Independent samples; the prompt is computed once."""
    beams: int = 1
    """Beam search of this width; 1 is off."""
    length_penalty: float = 1.0
    """Beam search: scores are divided by length to this power."""
    early_stopping: bool | Literal["never"] = False
    """Beam search ends when as many texts are finished as there are beams (True), when a running
    one is unlikely to beat them (False), or only when none can ("never"); as in transformers.
    """
    logprobs: int | None = None
    """Report each token's log-probability (before temperature and the like) and this many
    alternatives.
    """
    lookup: int = 0
    """Prompt-lookup speculation: draft so many tokens from the prompt; greedy only, the tokens stay
    the same. 0 is off.
    """

    def __post_init__(self) -> None:
        problems = _checks(self)
        if problems:
            raise RequestError("; ".join(problems))

    @property
    def sampled(self) -> bool:
        """Whether tokens are drawn and not simply the likeliest."""
        return self.effective_temperature > 0

    @property
    def effective_temperature(self) -> float:
        """The temperature, None resolved."""
        if self.temperature is not None:
            return self.temperature
        asks = self.top_k or self.top_p < 1 or self.min_p > 0 or self.typical_p < 1 or self.n > 1
        return 1.0 if asks and self.beams == 1 else 0.0


def resolve_options(pack: TaskPack | None, settings: Mapping[str, Any]) -> GenerationOptions:
    """The task's own stop texts and defaults, overridden by what the caller gave. Raises
    RequestError for unknown names.
    """
    known = [known.name for known in dataclasses.fields(GenerationOptions)]
    for name in settings:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3) or known
            raise RequestError(f"option {name!r} is unknown; did you mean {', '.join(near)}?")
    given = {name: _frozen(name, value) for name, value in settings.items()}
    wishes = _defaults(pack)
    # The caller's beams are not sampled, whatever the task would like
    if given.get("beams", 1) != 1:
        wishes = {name: value for name, value in wishes.items() if name not in _SAMPLING}
    return GenerationOptions(**(wishes | given))


def _defaults(pack: TaskPack | None) -> dict[str, Any]:
    """What the pack asks for, but for the length, which is only a wish (see `token_limit`)."""
    if pack is None:
        return {}
    wishes = {
        name: value
        for name, value in dataclasses.asdict(pack.generation).items()
        if value is not None
    }
    wishes.pop("max_new_tokens", None)
    return {**wishes, "stop": pack.stop}


def token_limit(options: GenerationOptions, pack: TaskPack | None, room: int) -> int | None:
    """Tokens that may be generated into `room` free positions; None when an explicit wish does not
    fit.
    """
    if options.max_new_tokens is not None:
        return options.max_new_tokens if options.max_new_tokens <= room else None
    wish = pack.generation.max_new_tokens if pack is not None else None
    return max(1, min(wish or DEFAULT_MAX_NEW_TOKENS, room)) if room > 0 else None


def _frozen(name: str, value: Any) -> Any:
    """Lists of texts become tuples; one text where several may stand is one."""
    if name not in ("stop", "banned_words", "forced_words"):
        return value
    if not isinstance(value, str | Iterable | None):
        raise RequestError(f"{name}={value!r}: expected a text or several")
    return (value,) if isinstance(value, str) else tuple(value or ())


def _checks(o: GenerationOptions) -> list[str]:
    """Everything that is wrong; combinations only when each value is fine by itself."""
    problems = [message for wrong, message in (*_number_checks(o), *_other_checks(o)) if wrong]
    return problems or [message for wrong, message in _combination_checks(o) if wrong]


def _other_checks(o: GenerationOptions) -> Iterable[tuple[bool, str]]:
    words = [*o.stop, *o.banned_words, *o.forced_words]
    yield (
        not all(isinstance(text, str) and text for text in words),
        "stop, banned and forced texts must not be empty",
    )
    yield not _is_bias(o.logit_bias), "logit_bias must be numbers or -inf by token id"
    yield (
        not isinstance(o.forced_prefix, str),
        f"forced_prefix={o.forced_prefix!r}: expected a text",
    )
    yield not isinstance(o.ignore_end, bool), f"ignore_end={o.ignore_end!r}: expected True or False"
    stopping = o.early_stopping
    known = isinstance(stopping, bool) or stopping == "never"
    yield not known, f"early_stopping={stopping!r}: expected True, False or 'never'"


def _combination_checks(o: GenerationOptions) -> Iterable[tuple[bool, str]]:
    """What fits its own range, but not its neighbours."""
    fewest, most = o.min_new_tokens, o.max_new_tokens
    yield (
        most is not None and fewest > most,
        f"min_new_tokens={fewest} is more than max_new_tokens={most}",
    )
    barred = sorted(set(o.forced_words) & set(o.banned_words))
    yield bool(barred), f"{', '.join(map(repr, barred))} cannot be forced and banned"
    yield (
        o.lookup > 0 and (o.sampled or o.beams > 1),
        "lookup works with greedy decoding only; set temperature=0",
    )
    if o.beams == 1:
        greedy = f"n={o.n} greedy samples would be equal; give a temperature above 0"
        yield o.n > 1 and not o.sampled, greedy
        yield o.early_stopping is not False, "early_stopping is for beam search; give beams above 1"
        return
    yield o.n > o.beams, f"n={o.n} results need at least as many beams, got beams={o.beams}"
    off = {"temperature": 0.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "typical_p": 1.0}
    sampling = [name for name, value in off.items() if getattr(o, name) not in (None, value)]
    yield (
        bool(sampling),
        f"beam search is not sampled; leave {', '.join(sampling)} out or beams={o.beams}",
    )


def _is_bias(bias: Any) -> bool:
    """Whether it maps token ids to numbers below infinity."""
    return isinstance(bias, Mapping) and all(
        isinstance(token, int | np.integer)
        and not isinstance(token, bool)
        and isinstance(value, int | float | np.number)
        and value < math.inf
        for token, value in bias.items()
    )


def _number_checks(o: GenerationOptions) -> Iterable[tuple[bool, str]]:
    ranges: list[tuple[str, Callable[[Any], bool], str]] = [
        ("max_new_tokens", lambda x: x >= 1, "at least 1"),
        ("min_new_tokens", lambda x: x >= 0, "at least 0"),
        ("temperature", lambda x: 0 <= x < math.inf, "0 (greedy) or more"),
        ("top_k", lambda x: x >= 0, "0 (off) or more"),
        ("top_p", lambda x: 0 < x <= 1, "above 0 and at most 1"),
        ("min_p", lambda x: 0 <= x <= 1, "between 0 and 1"),
        ("typical_p", lambda x: 0 < x <= 1, "above 0 and at most 1"),
        ("repetition_penalty", lambda x: 0 < x < math.inf, "above 0 (1 is off)"),
        ("presence_penalty", math.isfinite, "a number"),
        ("frequency_penalty", math.isfinite, "a number"),
        ("no_repeat_ngram", lambda x: x >= 0, "0 (off) or more"),
        ("seed", lambda x: x >= 0, "0 or more"),
        ("n", lambda x: x >= 1, "at least 1"),
        ("beams", lambda x: x >= 1, "at least 1"),
        ("length_penalty", math.isfinite, "a number"),
        ("logprobs", lambda x: 0 <= x <= 100, "between 0 and 100"),
        ("lookup", lambda x: 0 <= x <= 64, "between 0 (off) and 64"),
    ]
    whole = {
        "max_new_tokens",
        "min_new_tokens",
        "top_k",
        "no_repeat_ngram",
        "seed",
        "n",
        "beams",
        "logprobs",
        "lookup",
    }
    for name, holds, expected in ranges:
        value = getattr(o, name)
        if value is None and name in ("max_new_tokens", "temperature", "seed", "logprobs"):
            continue
        kind = (int, np.integer) if name in whole else (int, float, np.integer, np.floating)
        wrong = isinstance(value, bool) or not isinstance(value, kind) or not holds(value)
        yield wrong, f"{name}={value!r}: expected {expected}"
