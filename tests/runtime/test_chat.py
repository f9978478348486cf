"""Chat templates, those of downloaded bases included."""

from __future__ import annotations

import dataclasses
import sys

import pytest

from edgeprefix.runtime import Engine
from edgeprefix.runtime.errors import MissingExtraError, RequestError
from edgeprefix.runtime.tasks.chat import render_chat

CHATML = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] not in ['system', 'user', "
    "'assistant'] %}"
    "{{ raise_exception('unknown role ' + message['role']) }}{% endif %}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi {{ 7 * 7 }}"},
]


def test_messages_become_text() -> None:
    expected = (
        "<s><|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi {{ 7 * 7 "
        "}}<|im_end|>\n<|im_start|>assistant\n"
    )
    names = {"bos_token": "<s>"}
    assert render_chat(CHATML, MESSAGES, control_tokens=(), special_tokens=names) == expected
    without = render_chat(CHATML, MESSAGES, control_tokens=(), add_generation_prompt=False)
    assert not without.endswith("assistant\n")


def test_the_engine_uses_the_manifests_template(engine: Engine) -> None:
    with pytest.raises(RequestError, match="this base has no chat template"):
        engine.chat_prompt(MESSAGES)
    engine._preparer.manifest = dataclasses.replace(engine.manifest, chat_template=CHATML)
    ids = engine.chat_prompt(MESSAGES[1:])
    assert engine.tokenizer.decode(ids).startswith("<|im_start|>user\nHi")
    assert len(engine.generate(ids, max_new_tokens=3, ignore_end=True).tokens) == 3


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (CHATML, "unknown role robot"),
        ("{{ messages[0].__class__.__mro__ }}", "is unsafe"),
        ("{% for %}", "cannot take these messages"),
        ("{{ messages[0]['content'] + 1 }}", "cannot take these messages"),
    ],
)
def test_templates_that_refuse_or_reach_out(template: str, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        render_chat(template, [{"role": "robot", "content": "x"}], control_tokens=())


def test_without_jinja(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(
        MissingExtraError,
        match=r"chat templates need Jinja; type: pip install 'edgeprefix\[chat\]'",
    ):
        render_chat(CHATML, MESSAGES, control_tokens=())
