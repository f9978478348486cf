"""A chat template is found wherever transformers finds it, and in older places."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from checkpoints import edit_json
from transformers import AutoTokenizer

from edgeprefix.base.chat_template import read_chat_template
from edgeprefix.runtime.errors import CheckpointError

OURS = "{% for m in messages %}{{ m.content }}{% endfor %}"
TOOLS = "{{ tools }}"


def in_file(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text(OURS)
    additional(folder, tool_use=TOOLS)
    edit_json(folder / "tokenizer_config.json", chat_template="another")


def as_text(folder: Path) -> None:
    edit_json(folder / "tokenizer_config.json", chat_template=OURS)


def as_list(folder: Path) -> None:
    named = [{"name": "tool_use", "template": TOOLS}, {"name": "default", "template": OURS}]
    edit_json(folder / "tokenizer_config.json", chat_template=named)


def additional(folder: Path, **templates: str) -> None:
    (folder / "additional_chat_templates").mkdir(exist_ok=True)
    for name, template in templates.items():
        (folder / "additional_chat_templates" / f"{name}.jinja").write_text(template)


def in_folder(folder: Path) -> None:
    additional(folder, default=OURS, tool_use=TOOLS, **{"._default": "of macOS"})


def of_processor(folder: Path) -> None:
    edit_json(folder / "chat_template.json", chat_template=OURS)


def alone(folder: Path) -> None:
    edit_json(folder / "tokenizer_config.json", chat_template=[{"name": "chat", "template": OURS}])


@pytest.mark.parametrize("place", [in_file, as_text, as_list, in_folder, of_processor, alone])
def test_every_place_is_read(place: Any, copy: Path) -> None:
    assert read_chat_template(copy) is None
    place(copy)
    assert read_chat_template(copy) == OURS


@pytest.mark.parametrize("place", [in_file, as_text, as_list])
def test_it_is_the_one_that_transformers_takes(place: Any, copy: Path) -> None:
    place(copy)
    tokenizer = AutoTokenizer.from_pretrained(copy, trust_remote_code=False)
    assert tokenizer.get_chat_template() == read_chat_template(copy)


@pytest.mark.parametrize("bad", [5, [5], [{"name": "default"}], [{"template": OURS}]])
def test_what_is_no_template_is_refused(bad: Any, copy: Path) -> None:
    edit_json(copy / "tokenizer_config.json", chat_template=bad)
    with pytest.raises(CheckpointError, match=r"tokenizer_config\.json: chat_template is neither"):
        read_chat_template(copy)


def test_several_without_a_default_are_named(copy: Path) -> None:
    additional(copy, rag="a", tool_use="b")
    with pytest.raises(CheckpointError, match="the chat templates rag, tool_use and none of"):
        read_chat_template(copy)


def test_bytes_that_are_no_text_are_refused(copy: Path) -> None:
    (copy / "chat_template.jinja").write_bytes(b"\xff\xfe")
    with pytest.raises(CheckpointError, match=r"chat_template\.jinja cannot be read"):
        read_chat_template(copy)
    shutil.rmtree(copy)
