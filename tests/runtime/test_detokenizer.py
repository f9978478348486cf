"""Streaming text: whole characters only, stop texts held back, the sum of the pieces is the text of
all tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from edgeprefix.runtime.contracts.tokenizer import TextTokenizer
from edgeprefix.runtime.generation.detokenizer import Detokenizer, StopFilter, TextStream
from tiny import tiny_tokenizer

BYTE_LEVEL = TextTokenizer(
    Tokenizer.from_str(tiny_tokenizer().backend_tokenizer.to_str()), end_ids=(0,)
)


def byte_fallback_tokenizer() -> TextTokenizer:
    """Like Llama's: words with ▁ for the space, and one token for each byte of what is not in the
    vocabulary.
    """
    words = [
        "<unk>",
        "<s>",
        "</s>",
        *(f"<0x{byte:02X}>" for byte in range(256)),
        "▁",
        "▁the",
        "▁dog",
        "s",
        "é",
        "▁€",
    ]
    vocabulary = {word: index for index, word in enumerate(words)}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return TextTokenizer(tokenizer, end_ids=(2,))


BYTE_FALLBACK = byte_fallback_tokenizer()
KINDS = [pytest.param(BYTE_LEVEL, id="byte-level"), pytest.param(BYTE_FALLBACK, id="byte-fallback")]


def pieces_of(tokenizer: TextTokenizer, tokens: Sequence[int]) -> list[str]:
    stream = Detokenizer(tokenizer)
    return [*(stream.add(token) for token in tokens), stream.finish()]


@pytest.mark.parametrize("tokenizer", KINDS)
@given(data=st.data())
@settings(max_examples=300, deadline=None)
def test_pieces_of_any_tokens_sum_up_to_the_whole_text(
    tokenizer: TextTokenizer, data: st.DataObject
) -> None:
    tokens = data.draw(st.lists(st.integers(0, tokenizer.vocabulary_size - 1), max_size=40))
    assert "".join(pieces_of(tokenizer, tokens)) == tokenizer.decode(tokens)


@pytest.mark.parametrize("tokenizer", KINDS)
@given(text=st.text(alphabet="the dog's café €🙂🇫🇷漢\n", max_size=30))
@settings(max_examples=200, deadline=None)
def test_real_text_never_shows_half_a_character(tokenizer: TextTokenizer, text: str) -> None:
    tokens = tokenizer.encode_piece(text)
    pieces = pieces_of(tokenizer, tokens)
    assert "\ufffd" not in "".join(pieces)
    assert "".join(pieces) == tokenizer.decode(tokens)


def test_an_emoji_comes_out_whole() -> None:
    tokens = BYTE_LEVEL.encode_piece("🙂!")
    assert [piece for piece in pieces_of(BYTE_LEVEL, tokens) if piece] == ["🙂", "!"]


@given(
    text=st.text(alphabet="ab\n", max_size=30),
    stops=st.lists(st.text(alphabet="ab\n", min_size=1, max_size=4), max_size=3),
    cuts=st.lists(st.integers(1, 4), max_size=30),
)
@settings(max_examples=500, deadline=None)
def test_stop_texts_wherever_the_borders_are(text: str, stops: list[str], cuts: list[int]) -> None:
    filtered, out, place = StopFilter(stops), "", 0
    for size in [*cuts, len(text)]:
        out += filtered.add(text[place : place + size])
        place += size
        if filtered.found is not None:
            break
    out += filtered.finish()
    first = min((found for stop in stops if (found := text.find(stop)) >= 0), default=len(text))
    if filtered.found is None:
        assert out == text == text[:first]
    else:  # a longer stop text may begin earlier than one that was complete first
        assert out == text[: len(out)]
        assert text[len(out) :].startswith(filtered.found)
        assert first <= len(out)


def test_text_stream_stops_and_keeps_the_text_before() -> None:
    stream = TextStream(BYTE_LEVEL, ["er the"])
    for token in BYTE_LEVEL.encode_piece("jumps over the lazy"):
        stream.add(token)
        if stream.stopped:
            break
    assert stream.stopped
    assert stream.text + stream.finish() == "jumps ov"
