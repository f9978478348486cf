"""How a text is generated: one frozen dataclass, checked when made, so that the loop need not check anything."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict

from edgeprefix.runtime.contracts.task_pack import TaskPack
from edgeprefix.runtime.errors import RequestError

DEFAULT_MAX_NEW_TOKENS = 128


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
    logprobs: int | None
    lookup: int


@dataclass(frozen=True, kw_only=True)
class GenerationOptions:
    """Everything that decides which tokens come out. Raises RequestError for values that make no sense."""

    max_new_tokens: int | None = None
    """Tokens at most; None: 128, or what the room in the cache allows. A number that does not fit is an error."""
    min_new_tokens: int = 0
    """The end-of-text token is barred until so many tokens are out."""
    temperature: float | None = None
    """0 is greedy. None: 1 when an option that only sampling knows is given (top_k, top_p, min_p, typical_p, n), else 0."""
    top_k: int = 0
    """Only the k likeliest tokens; 0 is off."""
    top_p: float = 1.0
    """Only the smallest set of tokens that holds this much probability."""
    min_p: float = 0.0
    """Only tokens at least this fraction as likely as the likeliest."""
    typical_p: float = 1.0
    """Locally typical sampling: tokens nearest to the expected surprise, up to this much probability."""
    repetition_penalty: float = 1.0
    """Logits of tokens in prompt or text are divided (positive) or multiplied (negative) by it, as in CTRL."""
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
    """Texts that must appear: the end is barred until then, and the last tokens are kept for those still missing."""
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
    logprobs: int | None = None
    """Report each token's log-probability (before temperature and the like) and this many alternatives."""
    lookup: int = 0
    """Prompt-lookup speculation: draft so many tokens from the prompt; greedy only, the tokens stay the same. 0 is off."""

    def __post_init__(self) -> None:
        problems = [message for wrong, message in _checks(self) if wrong]
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
    """The task's own stop texts and defaults, overridden by what the caller gave. Raises RequestError for unknown names."""
    known = [known.name for known in dataclasses.fields(GenerationOptions)]
    for name in settings:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3) or known
            raise RequestError(f"option {name!r} is unknown; did you mean {', '.join(near)}?")
    given = {name: _frozen(name, value) for name, value in settings.items()}
    return GenerationOptions(**(_defaults(pack) | given))


def _defaults(pack: TaskPack | None) -> dict[str, Any]:
    """What the pack asks for, but for the length, which is only a wish (see `token_limit`)."""
    if pack is None:
        return {}
    wishes = {name: value for name, value in dataclasses.asdict(pack.generation).items() if value is not None}
    wishes.pop("max_new_tokens", None)
    return {**wishes, "stop": pack.stop}


def token_limit(options: GenerationOptions, pack: TaskPack | None, room: int) -> int | None:
    """Tokens that may be generated into `room` free positions; None when an explicit wish does not fit."""
    if options.max_new_tokens is not None:
        return options.max_new_tokens if options.max_new_tokens <= room else None
    wish = pack.generation.max_new_tokens if pack is not None else None
    return max(1, min(wish or DEFAULT_MAX_NEW_TOKENS, room)) if room > 0 else None


def _frozen(name: str, value: Any) -> Any:
    """Lists of texts become tuples; one text where several may stand is one."""
    if name in ("stop", "banned_words", "forced_words"):
        return (value,) if isinstance(value, str) else tuple(value or ())
    return value


def _checks(o: GenerationOptions) -> Iterable[tuple[bool, str]]:
    yield from _number_checks(o)
    words = [*o.stop, *o.banned_words, *o.forced_words]
    yield not all(isinstance(text, str) and text for text in words), "stop, banned and forced texts must not be empty"
    yield (
        any(math.isnan(bias) or bias == math.inf for bias in o.logit_bias.values()),
        "logit_bias must be numbers or -inf",
    )
    fewest, most = o.min_new_tokens, o.max_new_tokens
    yield most is not None and fewest > most, f"min_new_tokens={fewest} is more than max_new_tokens={most}"
    yield (
        o.n > 1 and not o.sampled and o.beams == 1,
        f"n={o.n} greedy samples would be equal; give a temperature above 0",
    )
    yield o.beams > 1 and o.n > o.beams, f"n={o.n} results need at least as many beams, got beams={o.beams}"
    yield o.beams > 1 and o.sampled, f"beam search is not sampled; leave temperature out or beams={o.beams}"
    unsupported = [
        name for name in ("logprobs", "forced_words", "forced_prefix") if getattr(o, name) not in (None, (), "")
    ]
    yield o.beams > 1 and bool(unsupported), f"beam search does not know {', '.join(unsupported)}"
    yield o.lookup > 0 and (o.sampled or o.beams > 1), "lookup works with greedy decoding only; set temperature=0"


def _number_checks(o: GenerationOptions) -> Iterable[tuple[bool, str]]:
    ranges: list[tuple[str, Callable[[float], bool], str]] = [
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
    whole = {"max_new_tokens", "min_new_tokens", "top_k", "no_repeat_ngram", "seed", "n", "beams", "logprobs", "lookup"}
    for name, holds, expected in ranges:
        value = getattr(o, name)
        if value is None and name in ("max_new_tokens", "temperature", "seed", "logprobs"):
            continue
        kind = int if name in whole else (int, float)
        wrong = isinstance(value, bool) or not isinstance(value, kind) or not holds(value)
        yield wrong, f"{name}={value!r}: expected {expected}"
