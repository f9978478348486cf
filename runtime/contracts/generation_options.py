"""How a text is generated: one frozen dataclass, checked when made, so that the loop need not check
anything.

It is the one table of these options (see `option`): a new one is a line here, its processor in
generation/sampler.py and its test; `python docs/tables.py` then writes what is derived from it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from edgeprefix.runtime.contracts.option import Option, option, options_of, problems
from edgeprefix.runtime.errors import RequestError

# Larger numbers would overflow fp32 when they are added up; and none says more than this one.
_LARGE = 1e30


@dataclass(frozen=True, kw_only=True)
class GenerationOptions:
    """Everything that decides which tokens come out. Raises RequestError for values that make no
    sense.
    """

    max_new_tokens: int | None = option(
        None,
        "Tokens at most. A number that does not fit the cache is an error, the default shrinks to "
        "the positions that are left.",
        least=1,
        unset="the task's, or 128",
        openai=("max_completion_tokens", "max_tokens"),
    )
    min_new_tokens: int = option(
        0, "The end-of-text token is barred until so many tokens are out.", least=0
    )
    temperature: float | None = option(
        None,
        "The larger, the more even the chances of tokens; 0 takes the likeliest.",
        least=0,
        sampling=True,
        unset="0, or 1 with n or an option of sampling",
        openai=("temperature",),
    )
    top_k: int = option(0, "Only the k likeliest tokens; 0 is off.", least=0, sampling=True)
    top_p: float = option(
        1.0,
        "Only the smallest set of tokens that holds this much probability.",
        above=0,
        most=1,
        sampling=True,
        openai=("top_p",),
    )
    min_p: float = option(
        0.0,
        "Only tokens at least this fraction as likely as the likeliest.",
        least=0,
        most=1,
        sampling=True,
    )
    typical_p: float = option(
        1.0,
        "Locally typical sampling: tokens nearest to the expected surprise, up to this much "
        "probability.",
        above=0,
        most=1,
        sampling=True,
    )
    repetition_penalty: float = option(
        1.0,
        "Logits of tokens in prompt or text are divided (positive) or multiplied (negative) by it, "
        "as in CTRL; 1 is off.",
        least=0.001,
        most=1000,
    )
    presence_penalty: float = option(
        0.0,
        "Subtracted once from the logits of tokens that the generated text already has.",
        least=-_LARGE,
        most=_LARGE,
        openai=("presence_penalty",),
    )
    frequency_penalty: float = option(
        0.0,
        "Subtracted from a token's logit as often as the generated text has it.",
        least=-_LARGE,
        most=_LARGE,
        openai=("frequency_penalty",),
    )
    no_repeat_ngram: int = option(
        0, "No n-gram of this length comes twice, prompt included; 0 is off.", least=0
    )
    logit_bias: Mapping[int, float] = option(
        {},
        "Added to the logits of these token ids; -inf bars one.",
        least=-_LARGE,
        most=_LARGE,
        openai=("logit_bias",),
    )
    banned_words: tuple[str, ...] = option(
        (),
        "Texts that do not appear, however they are cut into tokens or go on in a longer word.",
        flag="--ban",
    )
    forced_words: tuple[str, ...] = option(
        (),
        "Texts that appear: the end is barred until then, and the last tokens are kept for those "
        "still missing.",
        flag="--force-word",
    )
    forced_prefix: str = option("", "The text begins with this.", flag="--begin-with")
    stop: tuple[str, ...] = option(
        (),
        "Texts that end the generation and are not part of its result, wherever tokens begin and "
        "end; special tokens by their name.",
        unset="the task's",
        openai=("stop",),
    )
    ignore_end: bool = option(False, "Go on after the end-of-text token (for measurements).")
    seed: int | None = option(
        None, "One seed gives one result.", least=0, unset="drawn", openai=("seed",)
    )
    n: int = option(
        1,
        "So many texts: independent samples over one prompt, which is computed once, or the best "
        "beams.",
        least=1,
        openai=("n",),
    )
    beams: int = option(1, "Beam search of this width; 1 is off.", least=1)
    length_penalty: float = option(
        1.0,
        "Beam search divides scores by length to this power: above 0 favours longer texts.",
        least=-50,  # a million tokens to this power are still a float
        most=50,
    )
    early_stopping: bool | Literal["never"] = option(
        False,
        "Beam search ends when as many texts are finished as there are beams (True), when a "
        'running one is unlikely to beat them (False), or only when none can ("never"), as in '
        "transformers.",
        choices=(False, True, "never"),
    )
    logprobs: int | None = option(
        None,
        "Report each token's log-probability, before penalties, bans and temperature, and so many "
        "alternatives.",
        least=0,
        most=100,
        openai=("top_logprobs",),
    )
    lookup: int = option(
        0,
        "Prompt-lookup speculation: draft up to so many tokens from the prompt while the request "
        "decodes alone; greedy only, the tokens stay the same. 0 is off.",
        least=0,
        most=64,
    )

    def __post_init__(self) -> None:
        # Combinations only when each value is fine by itself
        wrong = problems(self) or list(_combination_problems(self))
        if wrong:
            raise RequestError("; ".join(wrong))

    @property
    def sampled(self) -> bool:
        """Whether tokens are drawn and not simply the likeliest."""
        return self.effective_temperature > 0

    @property
    def effective_temperature(self) -> float:
        """The temperature, None resolved."""
        if self.temperature is not None:
            return self.temperature
        return 1.0 if self.beams == 1 and (self.n > 1 or _sampling_asked(self)) else 0.0


def sampling_options() -> tuple[Option, ...]:
    """Those that mean nothing unless tokens are drawn."""
    return tuple(one for one in options_of(GenerationOptions) if one.facts.sampling)


def _sampling_asked(o: GenerationOptions) -> list[str]:
    """Names of the options of sampling that are on; a temperature of 0 is off."""
    asked = [one.name for one in sampling_options() if getattr(o, one.name) != one.default]
    return [name for name in asked if name != "temperature" or o.temperature]


def _combination_problems(o: GenerationOptions) -> Iterator[str]:
    """What fits its own range, but not its neighbours."""
    if o.max_new_tokens is not None and o.min_new_tokens > o.max_new_tokens:
        yield f"min_new_tokens={o.min_new_tokens} is more than max_new_tokens={o.max_new_tokens}"
    forced = sorted({*o.forced_words, o.forced_prefix})
    for text in (text for text in forced if any(banned in text for banned in o.banned_words)):
        yield f"{text!r} cannot be forced and banned"
    if o.lookup and (o.sampled or o.beams > 1):
        yield "lookup works with greedy decoding only; set temperature=0"
    yield from _beam_problems(o) if o.beams > 1 else _single_problems(o)


def _single_problems(o: GenerationOptions) -> Iterator[str]:
    if o.n > 1 and not o.sampled:
        yield f"n={o.n} greedy samples would be equal; give a temperature above 0"
    if o.early_stopping is not False:
        yield "early_stopping is for beam search; give beams above 1"


def _beam_problems(o: GenerationOptions) -> Iterator[str]:
    if o.n > o.beams:
        yield f"n={o.n} results need at least as many beams, got beams={o.beams}"
    if sampling := _sampling_asked(o):
        yield f"beam search is not sampled; leave {', '.join(sampling)} out or beams={o.beams}"
