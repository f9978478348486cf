"""A banned text does not appear, whatever tokens spell it."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from edgeprefix.runtime import Engine
from edgeprefix.runtime.contracts.tokenizer import TextTokenizer
from edgeprefix.runtime.engine.words import words_of
from edgeprefix.runtime.errors import RequestError
from edgeprefix.runtime.generation.banned_texts import BannedTexts
from edgeprefix.runtime.generation.options import GenerationOptions
from edgeprefix.runtime.generation.sampler import Vocabulary
from tiny import tiny_tokenizer

PAIRS = ["re", "at", "he"]  # whole tokens of the tiny tokenizer


@functools.cache
def family(name: str) -> TextTokenizer:
    """Small tokenizers that cut and join texts in different ways."""
    corpus = ["Please help the lazy dog, please. Where is the café?"] * 3
    if name == "byte-level":
        return TextTokenizer(tiny_tokenizer().backend_tokenizer, end_ids=(0,))
    special = ["<s>", "<unk>"]
    if name == "WordPiece":
        tokenizer = Tokenizer(models.WordPiece(unk_token="<unk>"))
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        tokenizer.decoder = decoders.WordPiece()
        trainer = trainers.WordPieceTrainer(vocab_size=90, special_tokens=special)
    else:  # Llama 2's form: a mark for spaces, bytes for what has no token
        tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
        tokenizer.normalizer = normalizers.Sequence(
            [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        )
        tokenizer.decoder = decoders.Sequence(
            [
                decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
                decoders.Strip(" ", 1, 0),
            ]
        )  # fmt: skip
        pieces = [f"<0x{byte:02X}>" for byte in range(256)]
        trainer = trainers.BpeTrainer(vocab_size=340, special_tokens=[*special, *pieces])
    tokenizer.train_from_iterator(corpus, trainer)
    return TextTokenizer(tokenizer, end_ids=(0,))


@given(
    name=st.sampled_from(["byte-level", "WordPiece", "Llama 2"]),
    seed=st.integers(0, 10_000),
    place=st.integers(0, 60),
    size=st.integers(1, 7),
)
@settings(max_examples=150, deadline=None)
def test_no_token_completes_a_banned_text(name: str, seed: int, place: int, size: int) -> None:
    """Random tokens, of which those that would complete the banned text are left out; it is a part
    of what they would have been, so it was about to come.
    """
    tokenizer = family(name)
    ids = np.random.default_rng(seed).integers(0, tokenizer.vocabulary_size, 40).tolist()
    banned = tokenizer.decode(ids)[place : place + size]
    assume(banned and "\ufffd" not in banned)
    texts = BannedTexts([banned], tokenizer.decode)
    tokens: list[int] = []
    for token in ids:
        if not texts.completed_by(tokens, token):
            tokens.append(token)
    assert banned not in tokenizer.decode(tokens)
    assert len(tokens) < len(ids)


def test_a_text_far_back_does_not_bar_what_comes() -> None:
    tokenizer = family("byte-level")
    texts = BannedTexts(["dog"], tokenizer.decode)
    tokens = tokenizer.encode_piece("d, o, " * 40 + "d")
    o, g = tokenizer.encode_piece("o")[0], tokenizer.encode_piece("g")[0]
    assert not texts.completed_by(tokens, o)
    assert texts.completed_by([*tokens, o], g)
    assert not texts.completed_by([*tokens, *tokenizer.encode_piece(", ")], g)


def single_letters(engine: Engine, word: str) -> dict[int, float]:
    """A bias to the letters of a word one by one, so that they come in this spelling."""
    return {engine.tokenizer.encode_piece(letter)[0]: 60.0 for letter in word}


@pytest.mark.parametrize("banned", PAIRS)
@pytest.mark.parametrize("how", [{"temperature": 1.0}, {"temperature": 1.0, "top_k": 3}])
def test_a_banned_text_comes_in_no_spelling(
    shared_engine: Engine, banned: str, how: dict[str, float]
) -> None:
    """Only its two letters may come: they stand next to one another before long, and spell what the
    tokenizer has as one token.
    """
    assert len(shared_engine.tokenizer.encode_piece(banned)) == 1
    settings = {"max_new_tokens": 40, "ignore_end": True, "n": 4, **how}
    bias = single_letters(shared_engine, banned)
    free = shared_engine.generate("x", logit_bias=bias, seed=1, **settings)
    assert all(banned in one.text for one in (free, *free.alternatives))
    held = shared_engine.generate("x", logit_bias=bias, seed=1, banned_words=banned, **settings)
    for one in (held, *held.alternatives):
        assert banned not in one.text
        assert len(one.tokens) == 40


def test_beams_and_greedy_texts_are_held_too(shared_engine: Engine) -> None:
    for options in ({"beams": 3, "n": 3}, {}, {"lookup": 4}):
        free = shared_engine.generate("The quick", max_new_tokens=12, ignore_end=True, **options)
        banned = [one.text[3:5] for one in (free, *free.alternatives)]
        held = shared_engine.generate(
            "The quick", max_new_tokens=12, ignore_end=True, banned_words=banned, **options
        )
        for one in (held, *held.alternatives):
            assert not any(text in one.text for text in banned)


def test_what_is_forced_and_banned_is_refused(shared_engine: Engine) -> None:
    with pytest.raises(RequestError, match="'Where is' cannot be forced and banned"):
        shared_engine.generate("x", forced_prefix="Where is", banned_words="ere")
    with pytest.raises(RequestError, match="'parcel' cannot be forced and banned"):
        shared_engine.generate("x", forced_words=["parcel"], banned_words="arc")


def test_a_forced_text_that_would_complete_a_banned_one(shared_engine: Engine) -> None:
    """The text ends in a space when the word is due, and a space behind another is banned: one text
    is at its end, of several beams another one goes on.
    """
    settings = {
        "max_new_tokens": 2 + len(shared_engine.tokenizer.encode_piece(" parcel")),
        "logit_bias": {shared_engine.tokenizer.encode_piece(" ")[0]: 60.0},
        "forced_words": ["parcel"],
        "banned_words": "  parcel",
    }
    with pytest.raises(RequestError, match="a forced text would complete a banned one"):
        shared_engine.generate("x", **settings)
    found = shared_engine.generate("x", beams=2, **settings)
    assert "parcel" in found.text
    assert "  parcel" not in found.text


def test_a_forced_text_that_the_tokenizer_cannot_write_is_refused() -> None:
    def words(**options: Any) -> Vocabulary:
        return words_of(GenerationOptions(**options), family("WordPiece"), 90)

    with pytest.raises(RequestError, match="forced_words: this base's tokenizer writes '' for 'Ω'"):
        words(forced_words=("Ω",))
    with pytest.raises(RequestError, match="forced_words: .* for '   '; force a text that it can"):
        words(forced_words=("   ",))
    with pytest.raises(RequestError, match="forced_prefix: .* for 'Ω lazy'"):
        words(forced_prefix="Ω lazy")
    assert words(forced_words=("lazy",)).forced
