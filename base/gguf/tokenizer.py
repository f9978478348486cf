"""The tokenizer of a GGUF file, put together from its facts: the same ids that llama.cpp gives.

Two kinds are read: bytes as characters with a list of merges ("gpt2": GPT-2, Llama 3, Qwen, …), and
sentencepiece's vocabulary with scores ("llama": Llama 2, Mistral, Gemma, …), from which the merges
follow. How a text is cut into words before it is merged the file says by a name only; those that
are not in `_CUTS` are refused, since other cuts are other ids.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)

from edgeprefix.base.gguf.reader import GgufFile
from edgeprefix.base.quiet import first_line
from edgeprefix.runtime.errors import CheckpointError

_NONE = ("none", "no_vocab")
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = range(1, 7)
"""llama.cpp's types of tokens."""

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2 = _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
_TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_GPT4O = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True)
class _Cut:
    """How a text becomes words, and what else goes with it."""

    pattern: str
    digits: bool = False
    """Whether digits stand alone before anything else."""
    whole_words: bool = False
    """Whether a word of the vocabulary is taken as it is, whatever its merges."""
    begins: bool = False
    """Whether a text begins with the begin token where the file does not say."""


_LLAMA3_CUT = _Cut(_LLAMA3, whole_words=True, begins=True)
_CUTS = {
    **dict.fromkeys(["gpt-2", "phi-2", "mpt", "olmo", "jais", "trillion"], _Cut(_GPT2)),
    **dict.fromkeys(
        ["smollm", "starcoder", "refact", "command-r", "codeshell"], _Cut(_GPT2, digits=True)
    ),
    **dict.fromkeys(
        ["llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0"],
        _LLAMA3_CUT,
    ),
    **dict.fromkeys(["dbrx", "smaug-bpe"], _Cut(_LLAMA3)),
    **dict.fromkeys(["qwen2", "stablelm2", "deepseek-r1-qwen", "megrez"], _Cut(_QWEN2)),
    "tekken": _Cut(_TEKKEN, whole_words=True, begins=True),
    **dict.fromkeys(["gpt-4o", "llama4"], _Cut(_GPT4O)),
}
"""tokenizer.ggml.pre → how it cuts (llama-vocab.cpp)."""

_ENDS = frozenset(
    {
        "<|eot_id|>", "<|eom_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|endoftext|>",
        "<|end_of_text|>", "<EOT>", "< EOT >", "_<EOT>", "<|end▁of▁sentence|>",
        "<end_of_utterance>",
    }
)  # fmt: skip
"""Control tokens that end a text whatever the file says of them, as llama.cpp has it."""


def build_tokenizer(file: GgufFile) -> Tokenizer | None:
    """The tokenizer, None when the file has none. Raises CheckpointError when it is of a kind that
    is not read here, or damaged.
    """
    facts = _Facts(file)
    kind = facts.text("model", "none")
    if kind in _NONE:
        return None
    builders = {"gpt2": _byte_level, "llama": _sentencepiece}
    if kind not in builders:
        raise facts.unreadable(
            f"its tokenizer is of the kind {kind!r}, and {', '.join(sorted(builders))} can be read"
        )
    try:
        tokenizer, begins = builders[kind](facts)
        _add_tokens(tokenizer, facts)
        _surround(tokenizer, facts, begins)
    except CheckpointError:
        raise
    except Exception as error:  # tokenizers raises no other kind
        raise facts.unreadable(f"its tokenizer is damaged: {first_line(error)}") from error
    return tokenizer


def special_tokens(file: GgufFile) -> dict[str, str]:
    """Texts of bos_token, eos_token, …, as far as the file names them."""
    facts = _Facts(file)
    names = {
        "bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "sep_token": "seperator",
        "pad_token": "padding", "cls_token": "cls",
    }  # fmt: skip
    ids = {name: facts.id(key) for name, key in names.items()}
    return {name: facts.tokens[token] for name, token in ids.items() if token is not None}


def end_ids(file: GgufFile, *, vocabulary: int) -> tuple[int, ...]:
    """Ids that end a text, the first of them the file's eos."""
    facts = _Facts(file)
    named = [facts.id(key) for key in ("eos", "eot", "eom")]
    known = [
        token
        for token, text in enumerate(facts.tokens)
        if text in _ENDS and facts.types[token] in (_CONTROL, _USER_DEFINED)
    ]
    found = dict.fromkeys(token for token in [*named, *known] if token is not None)
    return tuple(token for token in found if token < vocabulary)


class _Facts:
    """The facts tokenizer.ggml.… of a file."""

    def __init__(self, file: GgufFile) -> None:
        self._file = file
        tokens = self._get("tokens", [])
        if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
            raise self.unreadable("tokenizer.ggml.tokens is no list of texts")
        self.tokens: list[str] = tokens
        types = self._numbers("token_type")
        self.types = [_NORMAL] * len(tokens) if types is None else types

    def text(self, key: str, default: str | None) -> str | None:
        value = self._get(key, default)
        if value is not None and not isinstance(value, str):
            raise self.unreadable(f"tokenizer.ggml.{key} is no text")
        return value

    def flag(self, key: str, default: bool) -> bool:
        return bool(self._get(key, default))

    def id(self, name: str) -> int | None:
        """The id of a special token, None when the file names none that it has."""
        value = self._get(f"{name}_token_id", None)
        return value if isinstance(value, int) and 0 <= value < len(self.tokens) else None

    def scores(self) -> list[float]:
        found: list[float] | None = self._numbers("scores")
        if found is None:
            raise self.unreadable("it has no tokenizer.ggml.scores")
        return found

    def merges(self) -> list[tuple[str, str]]:
        found = self._get("merges", None)
        pairs = [tuple(merge.split(" ")) for merge in found] if isinstance(found, list) else []
        if not pairs or any(len(pair) != 2 for pair in pairs):
            raise self.unreadable("tokenizer.ggml.merges is no list of pairs")
        return [(first, second) for first, second in pairs]

    @property
    def architecture(self) -> str:
        return self._file.architecture

    def unreadable(self, what: str) -> CheckpointError:
        return CheckpointError(
            f"{self._file.path}: {what}; give the checkpoint that the file was made of"
        )

    def _numbers(self, key: str) -> Any:
        value = self._get(key, None)
        if value is None:
            return None
        if not isinstance(value, np.ndarray) or len(value) != len(self.tokens):
            raise self.unreadable(
                f"tokenizer.ggml.{key} is no list of {len(self.tokens):,} numbers, one a token"
            )
        return value.tolist()

    def _get(self, key: str, default: Any) -> Any:
        return self._file.facts.get(f"tokenizer.ggml.{key}", default)


def _byte_level(facts: _Facts) -> tuple[Tokenizer, bool]:
    """Bytes as characters; the tokenizer, and whether a text begins with the begin token."""
    name = facts.text("pre", None)
    cut = _CUTS.get(name or "")
    if cut is None:
        stated = f"is {name!r}, which is not known here" if name else "is not stated"
        raise facts.unreadable(f"how its tokenizer cuts words (tokenizer.ggml.pre) {stated}")
    tokenizer = Tokenizer(
        models.BPE(
            vocab={token: number for number, token in enumerate(facts.tokens)},
            merges=facts.merges(),
            ignore_merges=cut.whole_words,
        )
    )
    digits = [pre_tokenizers.Digits(individual_digits=True)] if cut.digits else []
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            *digits,
            pre_tokenizers.Split(Regex(cut.pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer, cut.begins


def _sentencepiece(facts: _Facts) -> tuple[Tokenizer, bool]:
    """▁ for the space; the merges follow from the scores. A text begins with the begin token."""
    tokens = [_respelled(token) for token in facts.tokens]
    unknown = facts.id("unknown")
    tokenizer = Tokenizer(
        models.BPE(
            vocab={token: number for number, token in enumerate(tokens)},
            merges=list(_merges(tokens, facts)),
            unk_token=None if unknown is None else tokens[unknown],
            fuse_unk=True,
            byte_fallback=facts.types.count(_BYTE) == 256,
        )
    )
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    if facts.flag("add_space_prefix", True):
        # Before every piece of text between special tokens, as llama.cpp puts it
        tokenizer.normalizer = normalizers.Sequence(
            [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        )
        steps.append(decoders.Strip(" ", 1, 0))
    tokenizer.decoder = decoders.Sequence(steps)
    return tokenizer, True


def _respelled(token: str) -> str:
    """Runs of spaces stand in the file as they are."""
    return token.replace(" ", "▁") if token.isspace() and token.strip(" ") == "" else token


def _merges(tokens: list[str], facts: _Facts) -> Iterator[tuple[str, str]]:
    """All ways to put a token together of two others, the tokens with the best scores first.

    A token that users define goes before all others: llama.cpp looks for it in the text before it
    merges anything. Control tokens and bytes are no results of merging.
    """
    scores, vocabulary = facts.scores(), set(tokens)
    results = [
        number
        for number, token in enumerate(tokens)
        if len(token) > 1 and facts.types[number] in (_NORMAL, _USER_DEFINED)
    ]
    results.sort(key=lambda number: (facts.types[number] != _USER_DEFINED, -scores[number]))
    for number in results:
        token = tokens[number]
        for cut in range(len(token) - 1, 0, -1):
            if token[:cut] in vocabulary and token[cut:] in vocabulary:
                yield token[:cut], token[cut:]


def _add_tokens(tokenizer: Tokenizer, facts: _Facts) -> None:
    """Tokens that are looked for in a text before it is cut: control tokens, and those that users
    define.
    """
    size = tokenizer.get_vocab_size()
    pairs = list(zip(facts.tokens, facts.types, strict=True))
    named = {facts.tokens[token] for token in _named_ids(facts)}
    tokenizer.add_special_tokens(
        [
            AddedToken(token, normalized=False, special=True)
            for token, kind in pairs
            if kind in (_CONTROL, _UNKNOWN) or token in named
        ]
    )
    tokenizer.add_tokens(
        [
            AddedToken(token, normalized=False)
            for token, kind in pairs
            if kind == _USER_DEFINED
            and token not in named
            and tokenizer.token_to_id(token) is not None
        ]
    )
    if tokenizer.get_vocab_size() != size:
        raise facts.unreadable("a special token of its tokenizer is none of its tokens")


def _named_ids(facts: _Facts) -> list[int]:
    found = (facts.id(name) for name in ("bos", "eos", "eot", "eom", "padding", "unknown"))
    return [token for token in found if token is not None]


def _surround(tokenizer: Tokenizer, facts: _Facts, begins: bool) -> None:
    """What is put before and behind every text."""
    begin, end = facts.id("bos"), facts.id("eos")
    parts: list[Any] = ["$A"]
    ids: dict[str, int] = {}
    if facts.flag("add_bos_token", begins) and begin is not None:
        parts, ids = [facts.tokens[begin], *parts], ids | {facts.tokens[begin]: begin}
    if facts.flag("add_eos_token", False) and end is not None:
        parts, ids = [*parts, facts.tokens[end]], ids | {facts.tokens[end]: end}
    if ids:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=parts, special_tokens=list(ids.items())
        )
