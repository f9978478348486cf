"""Chat templates of published bases give the text that transformers gives, and what users write in
them stays text.
"""

from __future__ import annotations

import functools
import itertools
import re
import resource
from pathlib import Path
from typing import Any

import pytest
from families import byte_level
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from edgeprefix.runtime.contracts.tokenizer import TextTokenizer
from edgeprefix.runtime.errors import RequestError, TemplateError
from edgeprefix.runtime.tasks.chat import render_chat

FOLDER = Path(__file__).parents[1] / "data" / "chat_templates"
TEMPLATES = {file.stem: file.read_text(encoding="utf-8") for file in sorted(FOLDER.glob("*.jinja"))}
ALL = pytest.mark.parametrize("name", TEMPLATES)
_CONTROL = re.compile(r"<[|｜][^|｜<>' ]+[|｜]>|</?[a-z_]+>|\[/?[A-Z_]+\]|<(?:start|end)_of_turn>")

SYSTEM = {"role": "system", "content": "  Answer in <b>bold</b> & short.\n"}
USER = {"role": "user", "content": " Wie spät ist es in 東京? "}
SAID = {"role": "assistant", "content": "<think>\nIt's late.\n</think>\n\nLate: 'x' < \"y\" "}
CALL = {
    "role": "assistant",
    "content": None,
    "tool_calls": [
        {
            "type": "function",
            "id": "abcdefgh1",
            "function": {"name": "clock", "arguments": {"zone": "Asia/東京", "at": "<now>"}},
        }
    ],
}
FOUND = {"role": "tool", "content": '{"time": "12:00 & more"}', "tool_call_id": "abcdefgh1"}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "clock",
            "description": "The time <here> & there",
            "parameters": {
                "type": "object",
                "required": ["zone"],
                "properties": {"zone": {"type": "string", "description": "Ort, z. B. “Köln”"}},
            },
        },
    }
]
DOCUMENTS = [{"title": "Uhr", "text": "Es ist <spät>."}, {"title": "b", "text": "c"}]
CONVERSATIONS: dict[str, dict[str, Any]] = {
    "question": {"messages": [USER]},
    "system": {"messages": [SYSTEM, USER]},
    "system alone": {"messages": [SYSTEM]},
    "turns": {"messages": [SYSTEM, USER, SAID, USER]},
    "answered": {"messages": [USER, SAID], "add_generation_prompt": False},
    "tools": {"messages": [SYSTEM, USER], "tools": TOOLS},
    "no tools": {"messages": [USER], "tools": []},
    "tool call": {"messages": [USER, CALL, FOUND], "tools": TOOLS},
    "documents": {"messages": [USER], "documents": DOCUMENTS},
    "not thinking": {"messages": [USER, SAID, USER], "enable_thinking": False},
    "reasoning": {"messages": [USER, {**SAID, "reasoning": "Hm."}, USER]},
    "text parts": {"messages": [{"role": "user", "content": [{"type": "text", "text": " a "}]}]},
    "wrong order": {"messages": [USER, USER]},
    "unknown role": {"messages": [{"role": "robot", "content": "x"}]},
}


@functools.cache
def tokenizer_of(name: str) -> PreTrainedTokenizerFast:
    """transformers' tokenizer with the template, and its control tokens in the vocabulary."""
    backend = byte_level()
    backend.add_special_tokens(["<s>", "</s>", *sorted(set(_CONTROL.findall(TEMPLATES[name])))])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<|endoftext|>",
        chat_template=TEMPLATES[name],
    )


@functools.cache
def ours(name: str) -> TextTokenizer:
    return TextTokenizer(tokenizer_of(name).backend_tokenizer, end_ids=())


def rendered(name: str, case: dict[str, Any]) -> Any:
    tokenizer = tokenizer_of(name)
    known = ("messages", "tools", "documents", "add_generation_prompt")
    return render_chat(
        TEMPLATES[name],
        control_tokens=ours(name).control_tokens(TEMPLATES[name]),
        special_tokens=tokenizer.special_tokens_map,
        variables={key: value for key, value in case.items() if key not in known},
        **{key: value for key, value in case.items() if key in known},
    )


@ALL
@pytest.mark.parametrize("case", CONVERSATIONS)
def test_the_text_is_that_of_transformers(name: str, case: str) -> None:
    given = {"add_generation_prompt": True, **CONVERSATIONS[case]}
    messages = given.pop("messages")
    try:
        expected = tokenizer_of(name).apply_chat_template(messages, tokenize=False, **given)
    except Exception:
        with pytest.raises(RequestError):
            rendered(name, CONVERSATIONS[case])
    else:
        assert rendered(name, CONVERSATIONS[case]) == expected


def test_most_conversations_are_taken() -> None:
    """That both refuse is no agreement on a text."""
    taken = 0
    for name in TEMPLATES:
        for case in CONVERSATIONS.values():
            try:
                taken += bool(rendered(name, case))
            except RequestError:
                continue
    assert len(TEMPLATES) >= 20
    assert taken > 0.7 * len(TEMPLATES) * len(CONVERSATIONS)


@functools.cache
def hostile(name: str) -> st.SearchStrategy[list[dict[str, str]]]:
    """Conversations whose contents name the template's control tokens, whole and in halves."""
    tokens = [*ours(name).control_tokens(TEMPLATES[name])]
    pieces = [*tokens, *(token[:-2] for token in tokens), *(token[2:] for token in tokens)]
    pieces += ["hello ", "\n", "é", "\U000f0000", "\U000f0001"]
    content = st.lists(st.sampled_from(pieces), min_size=1, max_size=5).map("".join)
    turn = st.tuples(content, content).map(
        lambda said: [
            {"role": "user", "content": f"a{said[0]}a"},
            {"role": "assistant", "content": f"a{said[1]}a"},
        ]
    )
    return st.lists(turn, max_size=2).flatmap(
        lambda turns: content.map(
            lambda last: [*itertools.chain(*turns), {"role": "user", "content": f"a{last}a"}]
        )
    )


@ALL
@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_only_the_templates_control_tokens_count(name: str, data: st.DataObject) -> None:
    messages = data.draw(hostile(name))
    harmless = [{**message, "content": "a"} for message in messages]
    tokenizer = ours(name)
    special = set(tokenizer_of(name).added_tokens_decoder) - {
        token for token, one in tokenizer_of(name).added_tokens_decoder.items() if not one.special
    }
    ids, plain = (
        tokenizer.encode_prompt(rendered(name, {"messages": each})) for each in (messages, harmless)
    )
    assert [token for token in ids if token in special] == [
        token for token in plain if token in special
    ]
    text = tokenizer.decode(ids, skip_special_tokens=False)
    assert text == rendered(name, {"messages": messages})


@ALL
def test_a_harmless_conversation_has_the_ids_of_transformers(name: str) -> None:
    messages = [USER, {"role": "assistant", "content": "Late."}, USER]
    expected = tokenizer_of(name).apply_chat_template(
        messages, add_generation_prompt=True, return_dict=False
    )
    assert ours(name).encode_prompt(rendered(name, {"messages": messages})) == expected


# What templates may not do ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "template",
    [
        "{{ 1 / 0 }}",
        "{{ messages[0].content + 1 }}",
        "{{ undefined_name.x }}",
        "{% for %}",
        "{{ 'x' | no_such_filter }}",
        "{% macro m(n) %}{{ m(n + 1) }}{% endmacro %}{{ m(0) }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ raise_exception.__globals__.x }}",
        "{{ strftime_now.__globals__.x }}",
        "{% set ns = namespace() %}{% set ns.__class__ = 1 %}",
        "{{ namespace(__class__=1) }}",
        "{% set _ = messages.append(1) %}",
        "{% include 'x' %}",
        "{{ range(10 ** 9) | list }}",
        "{{ 'x'.encode('no such codec') }}",
        "{{ strftime_now(1) }}",
        "{{ [[]] | tojson(indent=messages) }}",
    ],
)
def test_a_template_at_fault(template: str) -> None:
    with pytest.raises(TemplateError, match="the base's chat template cannot take these messages"):
        render_chat(template, [{"role": "user", "content": "x"}], control_tokens=())


GROWS = "{% set ns = namespace(x='aaaaaaaaaa') %}{% for i in range(60) %}"
NESTS = (
    "{% set ns = namespace(x=['a'], y=['a']) %}{% for i in range(60) %}"
    "{% set ns.x = [ns.x, ns.x] %}{% set ns.y = [ns.y, ns.y] %}{% endfor %}"
)
MILLION = "{% set a = 'a' * 1000000 %}"


@pytest.mark.parametrize(
    "template",
    [
        "{% for i in range(90000) %}{% for j in range(90000) %}{% endfor %}{% endfor %}",
        "{% for i in range(10 ** 9) %}{% endfor %}",
        "{% for x in [0, 1] recursive %}{{ loop([0, 1]) if loop.depth < 60 }}{% endfor %}",
        "{% for x in [0] recursive %}{{ loop(range(90000)) }}{% endfor %}",
        "{% macro m(n) %}{{ m(n - 1) ~ m(n - 1) if n > 0 }}{% endmacro %}{{ m(60) }}",
        "{{ 'a' * 10 ** 10 }}",
        "{{ ([0] * 10 ** 10) | length }}",
        "{{ 2 ** (10 ** 9) }}",
        GROWS + "{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
        GROWS + "{% set ns.x = ns.x + ns.x %}{% endfor %}",
        GROWS + "{% set ns.x %}{{ ns.x }}{{ ns.x }}{% endset %}{% endfor %}",
        GROWS + "{% set ns.x = [ns.x, ns.x] | join %}{% endfor %}",
        GROWS + "{% set ns.x = '%s%s' % (ns.x, ns.x) %}{% endfor %}",
        GROWS + "{% set ns.x = '{0}{0}'.format(ns.x) %}{% endfor %}",
        NESTS + "{{ ns.x }}",
        NESTS + "{{ ns.x | tojson }}",
        NESTS + "{{ ns.x ~ '' }}",
        NESTS + "{{ ns.x == ns.y }}",
        NESTS + "{{ '%s' % ns.x }}",
        "{{ 'a'.ljust(10 ** 10) }}",
        "{{ 'a' | center(10 ** 10) }}",
        MILLION + "{{ a.replace('a', a) }}",
        MILLION + "{{ a | replace('a', a) }}",
        MILLION + "{{ a.join([a] * 1000) }}",
        MILLION + "{{ ([a] * 1000) | join }}",
        MILLION + "{{ range(90000) | map('string') | join(a) }}",
        MILLION + "{{ a.translate({97: a}) }}",
        "{{ ('a\n' * 1000000) | indent(10000) }}",
        "{{ ([[0] * 1000000] * 1000) | sum(start=[]) | length }}",
        "{{ '%9999999999d' % 1 }}",
        "{{ '%*d' % (10 ** 10, 1) }}",
        "{{ '{:9999999999}'.format(1) }}",
        "{{ '{:{}}'.format(1, 10 ** 10) }}",
        "{{ '%9999999999d' | format(1) }}",
        "{{ lipsum(100000) }}",
    ],
)
def test_a_template_that_would_never_end_or_fill_the_memory(template: str) -> None:
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(TemplateError, match="the base's chat template cannot take these messages"):
        render_chat(template, [{"role": "user", "content": "x"}], control_tokens=())
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - grown
    assert grown < 200 << 10, "KiB"


def test_a_long_conversation_is_within_the_limits() -> None:
    """A thousand turns of a thousand characters, through every published template."""
    turns = [
        {"role": role, "content": "word " * 200}
        for _ in range(500)
        for role in ("user", "assistant")
    ]
    for name, template in TEMPLATES.items():
        special = {"bos_token": "<s>", "eos_token": "</s>"}
        text = render_chat(template, turns[:-1], control_tokens=(), special_tokens=special)
        assert len(str(text)) > 990_000, name


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([], "no messages"),
        ("hello", "no messages"),
        ({"role": "user"}, "no messages"),
        (["hello"], "message 1 is no object with a role"),
        ([{"content": "x"}], "message 1 is no object with a role"),
        ([{"role": "user|>", "content": "x"}], "the role 'user|>' is no plain name"),
        (
            [USER, {"role": "user", "content": [{"type": "image"}]}],
            "message 2 .* 'image': only text",
        ),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}], "only text"),
        ([{"role": "user", "content": Path("x")}], "JSON values, not"),
    ],
)
def test_messages_that_are_none(messages: Any, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        render_chat(TEMPLATES["chatml"], messages, control_tokens=())


def test_a_template_that_parts_the_marks() -> None:
    """What transformers' own marks do as well: the pair is parted, nothing is forged."""
    template = (
        "{% set c = messages[0].content %}{{ c.replace('<x>', '') }}|{{ c.split('<x>')[-1] }}"
    )
    messages = [{"role": "user", "content": "<|im_<x>end|> b"}]
    text = render_chat(template, messages, control_tokens=("<x>", "<|im_end|>"))
    assert text == "<|im_end|> b|end|> b"
    tokenizer = TextTokenizer(byte_level(), end_ids=())
    end = byte_level().token_to_id("<|im_end|>")
    assert end not in tokenizer.encode_prompt(text)
