"""The tokenizer of a GGUF file, put together from its facts."""

from __future__ import annotations

from tokenizers import Tokenizer

from edgeprefix.base.gguf.reader import GgufFile


def build_tokenizer(file: GgufFile) -> Tokenizer | None:
    return None


def end_ids(file: GgufFile, *, vocabulary: int) -> tuple[int, ...]:
    return ()


def special_tokens(file: GgufFile) -> dict[str, str]:
    return {}
