"""Stop texts that name special tokens, which decoding leaves out of a text."""

from __future__ import annotations

import functools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken

from edgeprefix.runtime import Engine, TemplateText
from edgeprefix.runtime.contracts.tokenizer import TextTokenizer
from edgeprefix.runtime.generation.detokenizer import TextStream
from edgeprefix.runtime.generation.stop_texts import StopTexts
from tiny import tiny_tokenizer

NAMES = ["<|im_end|>", "<|eot|>"]
PAD = 1


@functools.cache
def tokenizer() -> TextTokenizer:
    """The tiny one with special tokens of chats, and one that is not special."""
    inner = tiny_tokenizer().backend_tokenizer
    inner.add_special_tokens([AddedToken(name, special=True) for name in NAMES])
    inner.add_tokens([AddedToken("<tool>", special=False)])
    return TextTokenizer(inner, end_ids=(0,))


def shown(tokens: list[int], stops: list[str]) -> str:
    """The text with those of its special tokens that a stop text names."""
    text = tokenizer().decode(tokens, skip_special_tokens=False)
    for name in NAMES:
        text = text if any(name in stop for stop in stops) else text.replace(name, "")
    return text


def without_names(text: str) -> str:
    for name in NAMES:
        text = text.replace(name, "")
    return text


PIECES = st.lists(st.sampled_from(["a", "b", " dog", "\n", "<tool>", *NAMES]), max_size=12)
STOPS = st.lists(
    st.lists(st.sampled_from(["a", "b", "\n", "<tool>", *NAMES]), min_size=1, max_size=3).map(
        "".join
    ),
    min_size=1,
    max_size=3,
)


@given(pieces=PIECES, stops=STOPS)
@settings(max_examples=400, deadline=None)
def test_a_text_ends_before_a_stop_text_with_special_tokens(
    pieces: list[str], stops: list[str]
) -> None:
    """As a text that shows its special tokens would."""
    ids = [token for piece in pieces for token in tokenizer().encode_piece(TemplateText(piece))]
    stream, texts, out = TextStream(tokenizer(), stops), StopTexts(stops, _special()), ""
    for count, token in enumerate(ids, start=1):
        assert texts.cut(ids[: count - 1], tokenizer().decode) is None
        out += stream.add(token)
        places = [at for stop in stops if (at := shown(ids[:count], stops).find(stop)) >= 0]
        assert stream.stopped == bool(places)
        if places:
            before = without_names(shown(ids[:count], stops)[: min(places)])
            assert out == stream.text == before
            assert texts.cut(ids[:count], tokenizer().decode) == before
            return
    assert out + stream.finish() == stream.text == without_names(shown(ids, stops))


def _special() -> dict[str, int]:
    special = dict(tokenizer().special_tokens)
    assert set(special) == {*NAMES, "<|endoftext|>", "<|pad|>"}
    return special


@pytest.mark.parametrize("stop", ["<|pad|>", "<|pad|><|pad|>", "is<|pad|>", ["§", "<|pad|>"]])
@pytest.mark.parametrize("beams", [1, 2])
def test_the_engine_stops_at_a_special_token(
    shared_engine: Engine, stop: str | list[str], beams: int
) -> None:
    """After the forced beginning the base says nothing but padding."""
    settings = {"forced_prefix": "Where is", "logit_bias": {PAD: 90.0}, "max_new_tokens": 9}
    # The bias makes sums of log-probabilities positive: divided by length, short ones are ahead
    found = shared_engine.generate(
        "x", stop=stop, beams=beams, n=beams, length_penalty=20.0, **settings
    )
    beginning = shared_engine.tokenizer.encode_piece("Where is")
    tokens = (*beginning, *[PAD] * (2 if stop == "<|pad|><|pad|>" else 1))
    ended = [one for one in (found, *found.alternatives) if one.tokens == tokens]
    assert [one.text for one in ended] == ["Where " if stop == "is<|pad|>" else "Where is"]
    assert ended[0].finish_reason == "stop"


def test_a_stream_ends_at_a_special_token(shared_engine: Engine) -> None:
    pieces = list(
        shared_engine.stream(
            "x", stop="is<|pad|>", forced_prefix="Where is", logit_bias={PAD: 90.0}
        )
    )
    assert "".join(piece.text for piece in pieces) == "Where "
    assert pieces[-1].finish_reason == "stop"


def test_a_stop_text_may_be_spelt_by_letters_too(shared_engine: Engine) -> None:
    found = shared_engine.generate(
        "x", forced_prefix="on <|pad> and <|pad", stop="<|pad>",
        max_new_tokens=40,
    )  # fmt: skip
    assert found.text == "on "
