"""Files that are no tokenizer.json: damaged JSON, parts missing or of another kind, merges of
tokens that are not there.
"""

from __future__ import annotations

import copy
import json
from functools import cache
from random import Random
from typing import Any

from json_texts import damaged
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

TEXTS = ["The quick brown fox jumps over the lazy dog.", "a b c d e f g"]


@cache
def honest_tokenizers() -> tuple[dict[str, Any], ...]:
    """One of each family."""
    byte_level = Tokenizer(models.BPE())
    byte_level.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    byte_level.decoder = decoders.ByteLevel()
    pieces = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    pieces.normalizer = normalizers.Lowercase()
    pieces.pre_tokenizer = pre_tokenizers.Whitespace()
    pieces.decoder = decoders.WordPiece()
    unigram = Tokenizer(models.Unigram())
    unigram.pre_tokenizer = pre_tokenizers.Metaspace()
    unigram.decoder = decoders.Metaspace()
    quiet: dict[str, Any] = {"show_progress": False, "special_tokens": ["<s>", "[UNK]"]}
    trainers_of = {
        byte_level: trainers.BpeTrainer(vocab_size=300, **quiet),
        pieces: trainers.WordPieceTrainer(vocab_size=60, **quiet),
        unigram: trainers.UnigramTrainer(vocab_size=40, unk_token="[UNK]", **quiet),
    }
    for tokenizer, trainer in trainers_of.items():
        tokenizer.train_from_iterator(TEXTS, trainer)
    return tuple(json.loads(tokenizer.to_str()) for tokenizer in trainers_of)


KINDS = (7, True, "x", [1], [["x"]], 1.5)
PARTS: dict[str, tuple[Any, ...]] = {
    "model": (None, 7, "x", [], {}, {"type": "none"}, {"type": 7}, {"type": "BPE", "vocab": 7}),
    "added_tokens": (7, "x", {}, [1], ["x"], [{}], [{"id": "0", "content": "x"}], [{"id": -1}]),
    "normalizer": (*KINDS, {}, {"type": "none"}, {"type": "Replace"}),
    "pre_tokenizer": (*KINDS, {}, {"type": "none"}, {"type": "Split", "pattern": {"Regex": "("}}),
    "decoder": (*KINDS, {}, {"type": "none"}),
    "post_processor": (*KINDS, {}, {"type": "none"}, {"type": "TemplateProcessing", "single": 7}),
    "truncation": (*KINDS, {"direction": "up"}),
    "padding": (*KINDS, {"strategy": 7}),
}
MODEL: dict[str, tuple[Any, ...]] = {
    "type": ("none", 7, [], {}),
    "vocab": (7, "x", None, True, [7], [["a", "b", "c"]], {"a": "0"}, {"a": -1}, {"a": 1.5},
              {"a": 2**40}, {"a": None}),
    "merges": (7, "x", None, {"a": 1}, [7], ["a"], [["a"]], [["never there", "nor this"]],
               [["a", 7]], ["never there"]),
    "unk_id": ("0", 10**6, -1, 1.5, []),
    "unk_token": (7, [], {}),
}  # fmt: skip


def hostile_tokenizer(seed: int) -> tuple[str, bytes]:
    """What was done to it, and the file."""
    random = Random(seed)
    data = copy.deepcopy(random.choice(honest_tokenizers()))
    way = random.random()
    if way < 0.3:
        return damaged(random, data)
    if way < 0.4:
        name, data["version"] = "version", random.choice(["2.0", "", 1, None, []])
    elif way < 0.7:
        name = random.choice(list(PARTS))
        data[name] = random.choice(PARTS[name])
    else:
        names = [name for name in MODEL if name in data["model"]]
        name = random.choice(names)
        data["model"][name] = random.choice(MODEL[name])
        name = f"{data['model'].get('type')} {name}"
    return name, json.dumps(data).encode()
