"""Training and exporting read one checkpoint the same way: what they have to say to each other they
say in ids.
"""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
from checkpoints import edit_json
from tokenizers import Tokenizer, processors

from edgeprefix.base import load_base as load_for_export
from edgeprefix.runtime.contracts.template_text import TemplateText
from edgeprefix.runtime.contracts.tokenizer import TextTokenizer
from edgeprefix.runtime.errors import CheckpointError
from edgeprefix.train import FrozenModel
from edgeprefix.train import load_base as load_for_training
from tiny import save_checkpoint, tiny_gpt2, tiny_llama


@pytest.fixture
def chatty_base(llama_base: Path, tmp_path: Path) -> Path:
    """Several end tokens in the generation settings, another first one in the configuration, and a
    begin token.
    """
    folder = shutil.copytree(llama_base, tmp_path / "base")
    edit_json(folder / "generation_config.json", eos_token_id=[1, 0])
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|pad|> $A", special_tokens=[("<|pad|>", 1)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def loaded(folder: Path) -> tuple[FrozenModel, TextTokenizer]:
    """What training has, and the tokenizer that a bundle would have."""
    trained, exported = load_for_training(folder, precision="fp32"), load_for_export(folder)
    assert exported.tokenizer is not None
    assert trained.identity.sha256 == exported.identity.sha256
    assert trained.max_positions == exported.max_positions
    return trained, TextTokenizer(exported.tokenizer, end_ids=exported.end_ids)


def test_the_same_ids_for_training_and_running(chatty_base: Path) -> None:
    trained, running = loaded(chatty_base)
    assert trained.tokenizer.end_ids == running.end_ids == (1, 0)
    assert trained.tokenizer.encode_target("Rome") == running.encode_target("Rome")
    assert trained.tokenizer.encode_prompt("Where?") == running.encode_prompt("Where?")
    assert trained.tokenizer.encode_prompt("Where?")[0] == 1


@pytest.mark.parametrize(
    ("generation", "config", "token", "expected"),
    [
        ([5, 6], 7, "!", (5, 6, 7, 2)),
        (None, [7, 5], "!", (7, 5, 2)),
        (None, None, "!", (2,)),
        (5, 5, None, (5,)),
        ([5, 6], 5, {"content": "!", "lstrip": False}, (5, 6, 2)),
        (7, 7, "no such token", (7,)),
        (None, None, None, ()),
    ],
)
def test_all_ends_count_wherever_they_are_named(
    copy: Path, generation: Any, config: Any, token: Any, expected: tuple[int, ...]
) -> None:
    """Generation settings, configuration, tokenizer, in this order; the first closes a target."""
    edit_json(copy / "generation_config.json", eos_token_id=generation)
    edit_json(copy / "config.json", eos_token_id=config)
    edit_json(copy / "tokenizer_config.json", eos_token=token)
    assert Tokenizer.from_file(str(copy / "tokenizer.json")).token_to_id("!") == 2
    trained, running = loaded(copy)
    assert trained.tokenizer.end_ids == running.end_ids == expected
    text = trained.tokenizer.encode_piece("Rome")
    assert trained.tokenizer.encode_target("Rome") == text + list(expected[:1])


def test_a_class_default_counts_only_where_nothing_is_stated(copy: Path) -> None:
    """Llama's default is 2, an ordinary token here."""
    (copy / "generation_config.json").unlink()
    edit_json(copy / "config.json", eos_token_id=...)
    assert load_for_export(copy).end_ids == (0,)  # the tokenizer's
    edit_json(copy / "tokenizer_config.json", eos_token=...)
    assert load_for_export(copy).end_ids == (2,)


def test_ids_outside_the_vocabulary_are_left_out_with_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """GPT-2's own defaults over a smaller vocabulary, and -1 for "none"."""
    folder = save_checkpoint(tiny_gpt2(bos_token_id=50256, eos_token_id=50256), tmp_path / "base")
    edit_json(folder / "generation_config.json", eos_token_id=[-1, 50256, 1])
    with caplog.at_level(logging.WARNING):
        trained, running = loaded(folder)
    assert trained.tokenizer.end_ids == running.end_ids == (1, 0)
    assert load_for_export(folder).begin_id is None
    for token in (-1, 50256):
        assert f"eos_token_id {token} is no token of a vocabulary of 384" in caplog.text


@pytest.mark.parametrize("file", ["generation_config.json", "config.json"])
@pytest.mark.parametrize("bad", ["x", [0, None], 1.5, True, {"id": 0}])
def test_what_is_no_id_is_refused_by_training_and_export_alike(
    copy: Path, file: str, bad: Any
) -> None:
    edit_json(copy / file, eos_token_id=bad)
    for load in (load_for_training, load_for_export):
        with pytest.raises(CheckpointError, match=file):
            load(copy)


def add_tokens(folder: Path, count: int) -> int:
    """Adds the tokens <|+0|>, <|+1|>, …; gives the id of the first."""
    file = folder / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(file))
    first = tokenizer.get_vocab_size()
    tokenizer.add_tokens([f"<|+{number}|>" for number in range(count)])
    tokenizer.save(str(file))
    return int(first)


def test_added_tokens_without_a_row_are_text(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = save_checkpoint(tiny_llama(vocab_size=390), tmp_path / "base")
    inside = 390 - add_tokens(folder, 30)
    with caplog.at_level(logging.WARNING):
        trained, running = loaded(folder)
    assert f"none for {30 - inside} added tokens of its tokenizer" in caplog.text
    for number in (0, inside - 1, inside, 29):
        text = TemplateText(f"a<|+{number}|>b")  # a template may name them, a user may not
        ids = trained.tokenizer.encode_prompt(text)
        assert ids == running.encode_prompt(text)
        assert max(ids) < 390
        assert (390 - inside + number in ids) is (number < inside)
        assert running.decode(ids, skip_special_tokens=False) == f"a<|+{number}|>b"


def test_a_vocabulary_beyond_the_embedding_is_refused(copy: Path, gpt2_base: Path) -> None:
    content = json.loads((copy / "tokenizer.json").read_text())
    content["model"]["vocab"]["zebra"] = 400  # behind a gap
    (copy / "tokenizer.json").write_text(json.dumps(content))
    for load in (load_for_training, load_for_export):
        with pytest.raises(CheckpointError, match="knows 401 ids, its embedding has 384 rows"):
            load(copy)


def test_a_begin_token_without_a_row_is_refused(copy: Path) -> None:
    add_tokens(copy, 2)
    file = copy / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(file))
    last = tokenizer.token_to_id("<|+1|>")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|+1|> $A", special_tokens=[("<|+1|>", last)]
    )
    tokenizer.save(str(file))
    with pytest.raises(CheckpointError, match="they do not belong together"):
        load_for_export(copy)


def test_an_older_tokenizer_that_cannot_be_converted_says_what_to_do(copy: Path) -> None:
    (copy / "tokenizer.json").unlink()
    (copy / "tokenizer.model").write_bytes(b"\x0a\x05")
    for load in (load_for_training, load_for_export):
        with pytest.raises(CheckpointError, match=r"no tokenizer\.json.*sentencepiece") as caught:
            load(copy)
        assert "take tokenizer.json from the model's page" in str(caught.value)


def test_positions_have_one_limit(copy: Path) -> None:
    """Training knew no limit where the exporter had one: beyond a chunk Llama 4 computes
    otherwise.
    """
    edit_json(copy / "config.json", attention_chunk_size=100)
    trained, _ = loaded(copy)
    assert trained.max_positions == 100
