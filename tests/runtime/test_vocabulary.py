"""Tokenizer and embedding of different sizes: ids of text are ids of the base, and no id without
text is ever chosen.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeprefix.runtime import Engine
from edgeprefix.runtime.contracts.manifest import TOKENIZER_FILE, Manifest, record_files
from edgeprefix.runtime.contracts.template_text import TemplateText
from edgeprefix.runtime.errors import BundleError, RequestError
from edgeprefix.runtime.generation.options import GenerationOptions
from edgeprefix.runtime.generation.sampler import Sampler, Vocabulary
from tiny import VOCABULARY

KEPT = VOCABULARY - 30


def with_tokenizer(
    bundle: Path, folder: Path, change: Callable[[dict[str, Any]], None], **facts: Any
) -> Path:
    """A copy of the bundle whose tokenizer.json was changed."""
    shutil.copytree(bundle, folder)
    rules = json.loads((folder / TOKENIZER_FILE).read_text())
    change(rules)
    (folder / TOKENIZER_FILE).write_text(json.dumps(rules))
    manifest = Manifest.load(folder)
    dataclasses.replace(manifest, files=record_files(folder), **facts).save(folder)
    return folder


def fewer_entries(rules: dict[str, Any]) -> None:
    """Without the last entries, as if the embedding were padded to a round number."""
    vocabulary = rules["model"]["vocab"]
    gone = {text for text, token in vocabulary.items() if token >= KEPT}
    rules["model"]["vocab"] = {text: i for text, i in vocabulary.items() if text not in gone}
    rules["model"]["merges"] = [
        pair for pair in rules["model"]["merges"] if "".join(pair) not in gone
    ]


def more_entries(rules: dict[str, Any]) -> None:
    """20 added tokens beyond the embedding, and a normaliser that leaves nothing of spaces."""
    plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    rules["added_tokens"] += [
        {"id": VOCABULARY + n, "content": f"<extra_{n}>", "special": n % 2 == 0, **plain}
        for n in range(20)
    ]
    rules["normalizer"] = {"type": "Strip", "strip_left": True, "strip_right": True}


@pytest.mark.parametrize("beams", [1, 3])
def test_an_id_without_text_is_never_chosen(llama_bundle: Path, tmp_path: Path, beams: int) -> None:
    bundle = with_tokenizer(llama_bundle, tmp_path / "padded", fewer_entries)
    padded = range(KEPT, VOCABULARY)
    settings: dict[str, Any] = {"max_new_tokens": 60, "ignore_end": True, "beams": beams}
    if beams == 1:
        settings |= {"temperature": 20.0, "seed": 1}
    with Engine.load(bundle, max_batch=beams, max_length=96, threads=1) as engine:
        tokens = engine.generate("name: Ann", **settings).tokens
        assert not set(tokens) & set(padded)
        wanted = dict.fromkeys(padded, 50.0)
        tokens = engine.generate("name: Ann", logit_bias=wanted, **settings).tokens
        assert not set(tokens) & set(padded)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_likeliest_token_is_one_with_text(temperature: float) -> None:
    logits = np.zeros(8, np.float32)
    logits[[6, 7, 3]] = 40, 50, 30
    vocabulary = Vocabulary(size=8, unnamed=frozenset({6, 7}))
    sampler = Sampler(GenerationOptions(temperature=temperature, seed=0), vocabulary, [1])
    assert sampler(logits, [], 5) == 3


def test_tokens_beyond_the_embedding(
    llama_bundle: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bundle = with_tokenizer(llama_bundle, tmp_path / "more", more_entries, end_ids=(0, 50256))
    with Engine.load(bundle, max_batch=2, max_length=96, threads=1) as engine:
        assert "none for 20 added tokens of its tokenizer, such as <extra_0>" in caplog.text
        assert engine.tokenizer.end_ids == (0,)
        for prompt in ("<extra_3> a", TemplateText("<extra_3> a<extra_2>")):
            assert len(engine.generate(prompt, max_new_tokens=4, min_new_tokens=4).tokens) == 4
            assert len(engine.score(prompt, ["<extra_1>", "yes"])) == 2
        engine.generate("a", forced_words=["<extra_1>"], max_new_tokens=20)
        for option in ("<extra_1>", "yes"):
            assert engine.generate("a", banned_words=[option], max_new_tokens=2)
        with pytest.raises(RequestError, match="this base's tokenizer writes '' for '   '"):
            engine.generate("a", forced_words=["   "], max_new_tokens=4)
        with pytest.raises(RequestError, match="out of range"):
            engine.generate([VOCABULARY + 3], max_new_tokens=2)


def test_a_tokenizer_of_another_base(llama_bundle: Path, tmp_path: Path) -> None:
    bundle = with_tokenizer(llama_bundle, tmp_path / "other", lambda rules: None, vocabulary=100)
    with pytest.raises(BundleError, match="they do not belong together"):
        Engine.load(bundle, max_batch=1, max_length=32, threads=1)


def test_the_text_of_a_user_writes_no_control_token(engine: Engine) -> None:
    end, text = 0, "a<|endoftext|>b"
    assert end not in engine.logprobs(text).tokens
    assert end not in engine.logprobs({"x": text}, template="{x}").tokens
    tokens = engine.logprobs({"x": text}, template="<|endoftext|>{x}").tokens
    assert tokens.count(end) == 1
    assert tokens[0] == end
    assert engine.logprobs(TemplateText(text)).tokens.count(end) == 1, "who asks for it, gets it"
