"""Training and exporting read one checkpoint the same way: what they have to say to each other they
say in ids.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tokenizers import Tokenizer, processors

from edgeprefix.export.base import load_base as load_for_export
from edgeprefix.runtime.contracts.tokenizer import TextTokenizer
from edgeprefix.train import load_base as load_for_training


@pytest.fixture
def chatty_base(llama_base: Path, tmp_path: Path) -> Path:
    """Several end tokens in the generation settings, another first one in the configuration, and a
    begin token.
    """
    folder = shutil.copytree(llama_base, tmp_path / "base")
    settings = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps(settings | {"eos_token_id": [1, 0]}))
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|pad|> $A", special_tokens=[("<|pad|>", 1)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def test_the_same_ids_for_training_and_running(chatty_base: Path) -> None:
    trained, exported = (
        load_for_training(chatty_base, precision="fp32"),
        load_for_export(chatty_base),
    )
    assert exported.tokenizer is not None
    running = TextTokenizer(exported.tokenizer, end_ids=exported.end_ids)
    assert trained.tokenizer.end_ids == running.end_ids == (1, 0)
    assert trained.tokenizer.encode_target("Rome") == running.encode_target("Rome")
    assert trained.tokenizer.encode_prompt("Where?") == running.encode_prompt("Where?")
    assert trained.tokenizer.encode_prompt("Where?")[0] == 1
    assert trained.identity.sha256 == exported.identity.sha256
