"""Prompt templates and the one way from text to ids."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import processors

from edgeprefix.runtime.contracts.prompt import render_prompt, template_fields, unescaped
from edgeprefix.runtime.contracts.tokenizer import TextTokenizer
from edgeprefix.runtime.errors import BundleError, TemplateError
from tiny import tiny_tokenizer


def test_templates_are_filled() -> None:
    assert (
        render_prompt("{input} -> {{x}} {style}:", {"input": "a{b}", "style": "brief"})
        == "a{b} -> {x} brief:"
    )
    assert template_fields("{b} {a} {b}") == ["b", "a"]


def test_a_missing_field_is_named_with_those_there_are() -> None:
    with pytest.raises(
        TemplateError, match=r"needs field \{question\}, but the row has: input, target"
    ):
        render_prompt("{question}", {"target": "", "input": ""})


@pytest.mark.parametrize(
    "template", ["{input.__class__}", "{input[0]}", "{input!r}", "{input:>10}", "{}", "{0}"]
)
def test_a_template_reaches_nothing_but_fields(template: str) -> None:
    with pytest.raises(TemplateError, match="only plain names"):
        render_prompt(template, {"input": "x"})


@pytest.mark.parametrize("template", ["{input", "input}"])
def test_an_unreadable_template_says_how_to_write_a_brace(template: str) -> None:
    with pytest.raises(TemplateError, match=r"cannot be read: .*write \{\{ for a brace"):
        render_prompt(template, {"input": "x"})


TOKENIZER = TextTokenizer(tiny_tokenizer().backend_tokenizer, end_ids=[0])


@given(st.text(max_size=80))
def test_decode_gives_the_text_back(text: str) -> None:
    assert TOKENIZER.decode(TOKENIZER.encode_piece(text), skip_special_tokens=False) == text


def test_prompts_keep_the_special_tokens_of_the_tokenizer_and_targets_end() -> None:
    backend = tiny_tokenizer().backend_tokenizer
    backend.post_processor = processors.TemplateProcessing(
        single="<|pad|> $A", special_tokens=[("<|pad|>", 1)]
    )
    backend.enable_truncation(4)
    backend.enable_padding(length=32)
    tokenizer = TextTokenizer(backend, end_ids=[0])
    text = "Where is the café, please?"
    assert tokenizer.encode_prompt(text) == [1, *tokenizer.encode_piece(text)]
    assert tokenizer.encode_target(text) == [*tokenizer.encode_piece(text), 0]
    assert backend.truncation is not None, "the caller's tokenizer must stay as it was"


def test_a_damaged_tokenizer_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(BundleError, match=r"tokenizer.json is no readable tokenizer.json"):
        TextTokenizer.from_file(tmp_path / "tokenizer.json", end_ids=[])


@given(st.text(alphabet="\\ntdx{}\n\t", max_size=20))
def test_whatever_is_typed_with_its_backslashes_doubled_is_that_text(text: str) -> None:
    assert unescaped(text.replace("\\", "\\\\")) == text
    assert unescaped(text.replace("\\", "\\\\").replace("\n", "\\n").replace("\t", "\\t")) == text


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (r"{input}\n->", "{input}\n->"),
        (r"a\tb", "a\tb"),
        (r"\\theta and \\nabla", r"\theta and \nabla"),
        (r"\alpha \d \ ", r"\alpha \d \ "),
        (r"\\\n", "\\\n"),
    ],
)
def test_only_the_documented_escapes_are_read(typed: str, meant: str) -> None:
    assert unescaped(typed) == meant
