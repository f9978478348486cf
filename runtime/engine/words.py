"""Texts that are banned or forced, in the tokens of this base."""

from __future__ import annotations

from collections.abc import Sequence

from edgeprefix.runtime.contracts.tokenizer import TextTokenizer
from edgeprefix.runtime.engine.prepare import checked_text
from edgeprefix.runtime.errors import RequestError
from edgeprefix.runtime.generation.banned_texts import BannedTexts
from edgeprefix.runtime.generation.options import GenerationOptions
from edgeprefix.runtime.generation.sampler import Vocabulary


def words_of(options: GenerationOptions, tokenizer: TextTokenizer, vocabulary: int) -> Vocabulary:
    """The options' texts in tokens. Raises RequestError for a forced text that the tokenizer cannot
    write.
    """
    text = checked_text("forced_prefix", options.forced_prefix)
    beginning = tuple(tokenizer.encode_piece(text)) if text else ()
    if text:
        _require_writable(tokenizer, "forced_prefix", text, beginning)
    banned = (_spellings(tokenizer, word) for word in options.banned_words)
    return Vocabulary(
        size=vocabulary,
        end_ids=tokenizer.end_ids,
        unnamed=tokenizer.unnamed,
        banned=tuple(spelling for spellings in banned for spelling in spellings),
        banned_texts=BannedTexts(options.banned_words, tokenizer.decode)
        if options.banned_words
        else None,
        forced=tuple(_forced(tokenizer, word) for word in options.forced_words),
        beginning=beginning,
    )


def _forced(tokenizer: TextTokenizer, word: str) -> tuple[tuple[int, ...], ...]:
    """The spellings of a word that must appear. Raises RequestError when the tokenizer has none."""
    spellings = _spellings(tokenizer, word)
    _require_writable(tokenizer, "forced_words", word, spellings[0] if spellings else ())
    return spellings


def _require_writable(
    tokenizer: TextTokenizer, option: str, text: str, tokens: Sequence[int]
) -> None:
    """A tokenizer may write a text in lower case, say, or have no token for a character."""
    written = tokenizer.decode(tokens)
    if text.strip() not in written or not tokens:
        raise RequestError(
            f"{option}: this base's tokenizer writes {written!r} for {text!r}; force a text that "
            "it can write"
        )


def _spellings(tokenizer: TextTokenizer, word: str) -> tuple[tuple[int, ...], ...]:
    """A word within a text and at its beginning are different tokens: both."""
    checked_text("a banned or forced word", word)
    spellings = (tuple(tokenizer.encode_piece(text)) for text in (f" {word.lstrip()}", word))
    return tuple(dict.fromkeys(spelling for spelling in spellings if spelling))
