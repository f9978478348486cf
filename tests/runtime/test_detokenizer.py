"""Streaming text: whole characters only, stop texts held back, the sum of the pieces is the text of
all tokens, whatever the tokenizer.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import pytest
from families import FAMILIES, PADDING, gemma, llama2, mistral
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import decoders

from edgeprefix.runtime.contracts.tokenizer import TextTokenizer
from edgeprefix.runtime.generation.detokenizer import Detokenizer, StopFilter, TextStream
from tiny import tiny_tokenizer

MADE = {name: make() for name, make in FAMILIES.items()}
TOKENIZERS = {name: TextTokenizer(made, end_ids=()) for name, made in MADE.items()}
BYTE_LEVEL = TextTokenizer(tiny_tokenizer().backend_tokenizer, end_ids=(0,))
ALL = pytest.mark.parametrize("name", FAMILIES)


def pieces_of(tokenizer: TextTokenizer, tokens: Sequence[int]) -> list[str]:
    stream = Detokenizer(tokenizer)
    return [*(stream.add(token) for token in tokens), stream.finish()]


@functools.cache
def any_tokens(name: str) -> st.SearchStrategy[list[int]]:
    """Ids of the whole embedding, the special and the padded ones often; byte tokens in runs."""
    tokenizer, made = TOKENIZERS[name], MADE[name]
    size = tokenizer.vocabulary_size
    added = sorted(made.get_added_tokens_decoder())
    spaces = [i for i in range(size) if (tokenizer.token_text(i) or "").strip("▁ Ġ") == ""]
    bytes_ = [i for i in range(size) if (tokenizer.token_text(i) or "").startswith("<0x")]
    often = [st.sampled_from(ids) for ids in (added, spaces, bytes_) if ids]
    one = st.one_of(st.integers(0, size + PADDING - 1), *often)
    return st.lists(one, max_size=60)


@ALL
@given(data=st.data())
@settings(max_examples=200, deadline=None)
def test_pieces_of_any_tokens_sum_up_to_the_whole_text(name: str, data: st.DataObject) -> None:
    tokenizer, tokens = TOKENIZERS[name], data.draw(any_tokens(name))
    assert "".join(pieces_of(tokenizer, tokens)) == tokenizer.decode(tokens)


@ALL
@given(data=st.data())
@settings(max_examples=100, deadline=None)
def test_text_with_stops_is_the_whole_text_before_the_first(name: str, data: st.DataObject) -> None:
    tokenizer, tokens = TOKENIZERS[name], data.draw(any_tokens(name))
    whole = tokenizer.decode(tokens)
    place = data.draw(st.integers(0, max(0, len(whole) - 1)))
    stop = whole[place : place + data.draw(st.integers(1, 3))] or "never"
    stream = TextStream(tokenizer, [stop])
    pieces = []
    for token in tokens:
        pieces.append(stream.add(token))
        if stream.stopped:
            break
    pieces.append(stream.finish())
    assert "".join(pieces) == stream.text == whole.partition(stop)[0]


@ALL
@given(text=st.text(alphabet="the dog's café €🙂🇫🇷漢\n", max_size=30))
@settings(max_examples=50, deadline=None)
def test_real_text_never_shows_half_a_character(name: str, text: str) -> None:
    tokenizer = TOKENIZERS[name]
    tokens = tokenizer.encode_piece(text)
    pieces = pieces_of(tokenizer, tokens)
    assert "\ufffd" not in "".join(pieces)
    assert "".join(pieces) == tokenizer.decode(tokens)


@pytest.mark.parametrize("tokenizer", [llama2(), mistral(), gemma()])
def test_what_decoding_leaves_out_changes_nothing_around_it(tokenizer: object) -> None:
    known = TextTokenizer(tokenizer, end_ids=())  # type: ignore[arg-type]
    ids = {known.token_text(i): i for i in range(known.vocabulary_size)}
    for spelled in (
        ["▁the", "<unk>", "▁time"],
        ["<0xF0>", "<0x9D>", "<0x92>", "<0xB3>", "<s>", "<0xA0>", "the"],
        ["<0xF0>", "<0x9D>", "<s>", "<0x92>", "<0xB3>", "the"],
        ["▁", "<s>", "▁", "</s>", "▁the"],
    ):
        tokens = [ids[text] for text in spelled]
        assert "".join(pieces_of(known, tokens)) == known.decode(tokens), spelled


def test_an_emoji_comes_out_whole() -> None:
    tokens = BYTE_LEVEL.encode_piece("🙂!")
    assert [piece for piece in pieces_of(BYTE_LEVEL, tokens) if piece] == ["🙂", "!"]


def test_text_comes_while_it_is_made() -> None:
    """Equality alone would hold for a detokenizer that says everything at the end."""
    for name, tokenizer in TOKENIZERS.items():
        tokens = tokenizer.encode_piece("Once upon a time. the dog , the time")
        *pieces, last = pieces_of(tokenizer, tokens)
        assert not last, name
        assert max(map(len, pieces)) <= 12, name


@pytest.mark.parametrize("name", ["byte_level", "mistral", "wordpiece"])
@pytest.mark.parametrize("token", ["text", "garbage", "special"])
def test_a_token_costs_the_same_however_long_the_text_is(
    monkeypatch: pytest.MonkeyPatch, name: str, token: str
) -> None:
    tokenizer, made = TOKENIZERS[name], MADE[name]
    garbage = {"byte_level": "ÿ", "mistral": "<0xFF>", "wordpiece": "##s"}[name]
    spelled = {"text": "t", "garbage": garbage, "special": tokenizer.token_text(0)}[token]
    one = made.token_to_id(spelled)
    decoded: list[int] = []  # tokens of each call of the tokenizer

    def decode(ids: Sequence[int], **how: Any) -> str:
        decoded.append(len(ids))
        return TextTokenizer.decode(tokenizer, ids, **how)

    monkeypatch.setattr(tokenizer, "decode", decode)
    stream = Detokenizer(tokenizer)

    def cost(count: int) -> int:
        decoded.clear()
        for _ in range(count):
            stream.add(one)
        return sum(decoded)

    early = cost(500)
    cost(8000)
    assert cost(500) <= early + 500


def test_a_decoder_without_a_safe_cut_says_everything_at_the_end() -> None:
    made = FAMILIES["words"]()
    made.decoder = decoders.CTC(pad_token="<pad>", word_delimiter_token="|")
    tokenizer = TextTokenizer(made, end_ids=())
    tokens = [5, 5, 6, 7, 5]
    *pieces, last = pieces_of(tokenizer, tokens)
    assert not any(pieces)
    assert last == tokenizer.decode(tokens)


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
