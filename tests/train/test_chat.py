"""Prompt templates from chat templates."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeprefix.runtime.contracts.prompt import render_prompt
from edgeprefix.runtime.errors import CheckpointError
from edgeprefix.train.chat import chat_prompt
from tiny import tiny_llama, tiny_tokenizer

TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@pytest.fixture
def chat_base(tmp_path: Path) -> Path:
    tiny_llama().save_pretrained(tmp_path)
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(tmp_path)
    return tmp_path


def test_the_template_holds_one_field_and_ends_where_the_assistant_begins(chat_base: Path) -> None:
    assert chat_prompt(chat_base) == "<|user|>{input}\n<|assistant|>"
    template = chat_prompt(chat_base, system="Answer in {JSON}.")
    assert template == "<|system|>Answer in {{JSON}}.\n<|user|>{input}\n<|assistant|>"
    assert render_prompt(template, {"input": "hello"}) == "<|system|>Answer in {JSON}.\n<|user|>hello\n<|assistant|>"


def test_a_base_without_a_chat_template_is_named(llama_base: Path) -> None:
    with pytest.raises(CheckpointError, match="has no chat template; give --prompt instead of --chat"):
        chat_prompt(llama_base)
