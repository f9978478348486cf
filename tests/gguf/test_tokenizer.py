"""Tokenizers from the facts of a GGUF file: the ids of the tokenizer that the facts were made of,
and, for sentencepiece's vocabularies, those of llama.cpp's own algorithm.
"""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from families import CORPUS, gemma, llama2
from gguf_files import MODELS, tokenizer_facts, write_gguf
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX as QWEN2

from edgeprefix.base.checkpoint import find_checkpoint
from edgeprefix.base.gguf.reader import GgufFile
from edgeprefix.base.gguf.tokenizer import build_tokenizer, end_ids, special_tokens
from tiny import tiny_tokenizer

PIECES = [
    "a", " ", "  ", "\n", "\r\n", "\t", "é", "e\u0301", "漢字", "ß", "'s", "'LL", "I'm", "12345",
    "7", "³", "½", "<|im_start|>", "<think>", "<s>", "</s>", "\n\n", "<start_of_turn>", "▁", "☃",
    "👩‍👩‍👧", "the",
    "The", " quick", ".", ", ", "!?", "<0x41>", "\u0000", "\u200d", "x = f(y)\n", "A.B/C",
]  # fmt: skip


def texts(count: int = 400) -> Iterator[str]:
    generator = random.Random(0)
    yield from [*CORPUS, "", " ", "  two", "end  "]
    for _ in range(count):
        yield "".join(generator.choice(PIECES) for _ in range(generator.randrange(1, 12)))


def written(folder: Path, **facts: Any) -> GgufFile:
    write_gguf(MODELS["llama"](), folder / "model.gguf", **facts)
    return GgufFile.open(folder / "model.gguf")


def facts_of(tokenizer: Tokenizer, **more: Any) -> dict[str, Any]:
    """What llama.cpp's converter writes of a byte-level tokenizer."""
    content = json.loads(tokenizer.to_str())
    size = tokenizer.get_vocab_size()
    special = {token["id"]: token["special"] for token in content["added_tokens"]}
    kinds = {True: 3, False: 4, None: 1}
    return {
        "tokenizer.ggml.tokens": [tokenizer.id_to_token(token) for token in range(size)],
        "tokenizer.ggml.token_type": [kinds[special.get(token)] for token in range(size)],
        "tokenizer.ggml.merges": [" ".join(pair) for pair in content["model"]["merges"]],
        **{f"tokenizer.ggml.{key}": value for key, value in more.items()},
    }


def byte_level(cut: pre_tokenizers.PreTokenizer, **options: Any) -> Tokenizer:
    """A byte-level tokenizer with special tokens and added ones, trained in place."""
    tokenizer = Tokenizer(models.BPE(**options))
    tokenizer.pre_tokenizer = cut
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        CORPUS * 3,
        trainers.BpeTrainer(
            vocab_size=500, special_tokens=["<|endoftext|>", "<|im_end|>"], show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        ),
    )  # fmt: skip
    tokenizer.add_special_tokens(["<|im_start|>"])
    tokenizer.add_tokens([AddedToken("<think>", normalized=False), AddedToken("\n\n")])
    return tokenizer


def split(pattern: str) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


LLAMA3 = (  # as meta-llama/Llama-3.2-1B's tokenizer.json has it
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TEKKEN = (  # as mistralai/Mistral-Nemo-Base-2407's has it
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CUTS = {
    "gpt-2": pre_tokenizers.ByteLevel(add_prefix_space=False),
    "smollm": pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    ),
    "llama-bpe": split(LLAMA3),
    "dbrx": split(LLAMA3),
    "qwen2": split(QWEN2),
    "tekken": split(TEKKEN),
}
WHOLE_WORDS = ("llama-bpe", "tekken")


@pytest.mark.parametrize("name", CUTS)
def test_byte_level_tokenizers(name: str, tmp_path: Path) -> None:
    expected = byte_level(CUTS[name], ignore_merges=name in WHOLE_WORDS)
    facts = facts_of(expected, pre=name, add_bos_token=False)
    found = build_tokenizer(written(tmp_path, **facts))
    assert found is not None
    for text in texts():
        assert found.encode(text).ids == expected.encode(text).ids, text
        ids = expected.encode(text).ids
        for skip in (True, False):
            assert found.decode(ids, skip_special_tokens=skip) == expected.decode(
                ids, skip_special_tokens=skip
            )


@pytest.mark.parametrize(
    ("name", "stated", "first"),
    [
        ("llama-bpe", None, True), ("llama-bpe", False, False), ("gpt-2", None, False),
        ("gpt-2", True, True),
    ],
)  # fmt: skip
def test_a_begin_token_where_the_file_or_its_kind_says_so(
    name: str, stated: bool | None, first: bool, tmp_path: Path
) -> None:
    facts = facts_of(byte_level(CUTS[name]), pre=name, add_bos_token=stated, bos_token_id=2)
    found = build_tokenizer(written(tmp_path, **facts))
    assert found is not None
    assert (found.encode("a b").ids[0] == 2) is first
    assert found.encode("a b", add_special_tokens=False).ids[0] != 2


def test_an_end_token_where_the_file_says_so(tmp_path: Path) -> None:
    found = build_tokenizer(written(tmp_path, **{"tokenizer.ggml.add_eos_token": True}))
    assert found is not None
    assert found.encode("a b").ids[-1] == 0


def pieces_of(tokenizer: Tokenizer) -> tuple[list[str], list[float], list[int]]:
    """Tokens, scores and types of a sentencepiece vocabulary."""
    content = json.loads(tokenizer.to_str())
    size = tokenizer.get_vocab_size()
    tokens = [tokenizer.id_to_token(token) for token in range(size)]
    kinds = [6 if token.startswith("<0x") else 1 for token in tokens]
    for token in content["added_tokens"]:
        kinds[token["id"]] = 3 if token["special"] else 4
    scores = [0.0 if kind == 6 else -1000.0 for kind in kinds]
    normal = [token for token, kind in enumerate(kinds) if kind == 1]
    for rank, token in enumerate(normal):
        scores[token] = -float(rank)
    return tokens, scores, kinds


def as_llama_cpp(text: str, tokens: list[str], scores: list[float], kinds: list[int]) -> list[int]:
    """llm_tokenizer_spm: the two neighbours whose union has the best score, the first of equal
    ones, become one; what is no token falls to bytes.
    """
    ids = {token: number for number, token in enumerate(tokens)}
    symbols = list(text)
    while True:
        pairs = [
            (scores[ids[one + other]], -place)
            for place, (one, other) in enumerate(itertools.pairwise(symbols))
            if one + other in ids and kinds[ids[one + other]] in (1, 4)
        ]
        if not pairs:
            break
        place = -max(pairs)[1]
        symbols[place : place + 2] = ["".join(symbols[place : place + 2])]
    found: list[int] = []
    for symbol in symbols:
        bytes_of = [ids[f"<0x{byte:02X}>"] for byte in symbol.encode()]
        found += [ids[symbol]] if symbol in ids else bytes_of
    return found


@pytest.mark.parametrize("family", [llama2, gemma], ids=["llama", "gemma"])
def test_sentencepiece_tokenizers(family: Any, tmp_path: Path) -> None:
    tokens, scores, kinds = pieces_of(family())
    spaced = family is llama2
    begin = tokens.index("<s>")
    file = written(
        tmp_path,
        **{
            "tokenizer.ggml.model": "llama", "tokenizer.ggml.pre": "default",
            "tokenizer.ggml.tokens": tokens, "tokenizer.ggml.scores": scores,
            "tokenizer.ggml.token_type": kinds, "tokenizer.ggml.merges": None,
            "tokenizer.ggml.bos_token_id": begin, "tokenizer.ggml.add_space_prefix": spaced,
            "tokenizer.ggml.eos_token_id": tokens.index("</s>"),
            "tokenizer.ggml.unknown_token_id": tokens.index("<unk>"),
        },
    )  # fmt: skip
    found = build_tokenizer(file)
    assert found is not None
    added = [token for token, kind in zip(tokens, kinds, strict=True) if kind in (3, 4)]
    for text in texts():
        ids = found.encode(text).ids
        assert ids[0] == begin
        expected = [begin]
        for piece, special in cut_at(text, added):
            if special:
                expected.append(tokens.index(piece))
            else:
                spelled = ("▁" if spaced else "") + piece.replace(" ", "▁")
                expected += as_llama_cpp(spelled, tokens, scores, kinds)
        assert ids == expected, text
        if not any(piece in text for piece in [*added, "▁"]):
            assert found.decode(ids) == text
    assert special_tokens(file) == {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
    } | {"pad_token": tokens[1]}


def cut_at(text: str, added: list[str]) -> Iterator[tuple[str, bool]]:
    """The pieces of a text, and whether each is one of the tokens that are looked for first."""
    start = place = 0
    longest = sorted(added, key=len, reverse=True)
    while place < len(text):
        token = next((token for token in longest if text.startswith(token, place)), None)
        if token is None:
            place += 1
            continue
        if start < place:
            yield text[start:place], False
        yield token, True
        start = place = place + len(token)
    if start < len(text):
        yield text[start:], False


def test_a_control_token_is_no_result_of_merging(tmp_path: Path) -> None:
    """Text that looks like one stays text where special tokens are not looked for."""
    expected = byte_level(CUTS["gpt-2"])
    found = build_tokenizer(written(tmp_path, **facts_of(expected, pre="gpt-2")))
    assert found is not None
    found.encode_special_tokens = True
    assert found.token_to_id("<|im_end|>") not in found.encode("<|im_end|>").ids


def test_ends_of_a_text(tmp_path: Path) -> None:
    """The file's eos and eot, then what llama.cpp knows by name."""
    facts = facts_of(byte_level(CUTS["gpt-2"]), pre="gpt-2", eos_token_id=5, eot_token_id=7)
    file = written(tmp_path, **facts)
    assert end_ids(file, vocabulary=600) == (5, 7, 0, 1)
    assert end_ids(file, vocabulary=6) == (5, 0, 1)


def test_a_file_without_a_tokenizer_has_none(tmp_path: Path) -> None:
    bare = dict.fromkeys(tokenizer_facts()) | {"tokenizer.ggml.model": "no_vocab"}
    file = written(tmp_path, **bare)
    assert build_tokenizer(file) is None
    assert end_ids(file, vocabulary=384) == ()
    assert special_tokens(file) == {}


def test_the_tiny_tokenizer_comes_back(tmp_path: Path) -> None:
    file = written(tmp_path)
    found, expected = build_tokenizer(file), tiny_tokenizer().backend_tokenizer
    assert found is not None
    for text in texts(100):
        assert found.encode(text).ids == expected.encode(text).ids


def test_the_chat_template_and_wishes_for_sampling(tmp_path: Path) -> None:
    written(
        tmp_path,
        **{
            "tokenizer.chat_template": "{{ messages }}",
            "general.sampling.temp": 0.5,
            "general.sampling.top_k": 3,
        },
    )
    source = find_checkpoint(tmp_path / "model.gguf")
    assert source.chat_template() == "{{ messages }}"
    assert source.generation_settings() == {"do_sample": True, "temperature": 0.5, "top_k": 3}
