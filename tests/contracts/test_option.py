"""A table of options: what its lines say, which values they take, and its schema."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprefix.runtime import GenerationDefaults, GenerationOptions, TaskPack
from edgeprefix.runtime.contracts.option import (
    Option,
    json_schema,
    option,
    options_of,
    problems,
)
from edgeprefix.runtime.errors import RequestError


@dataclass(frozen=True, kw_only=True)
class Table:
    """One option of each kind."""

    count: int = option(2, "A count.", least=1, most=9)
    share: float | None = option(None, "A share.", above=0, below=1, unset="chosen")
    loud: bool = option(False, "Loud.")
    name: str = option("auto", "A name.", pattern="auto|[a-z]+[.]txt", expected="auto or a file")
    words: tuple[str, ...] = option((), "Words.", flag="--word", openai=("words",))
    bias: Mapping[int, float] = option({}, "Bias.", least=-5, most=5)
    colour: str = option("red", "A colour.", choices=("red", "blue"))
    when: bool | Literal["later"] = option(False, "When.", choices=(False, True, "later"))


RIGHT: dict[str, list[Any]] = {
    "count": [1, 9],
    "share": [None, 0.5, 1e-300],
    "loud": [True],
    "name": ["auto", "a.txt"],
    "words": [("a",), ["a", "b"], ()],
    "bias": [{}, {3: 5, 4: -5.0, 5: float("-inf")}],
    "colour": ["blue"],
    "when": [True, "later"],
}
WRONG: dict[str, tuple[list[Any], str]] = {
    "count": ([0, 10, 1.0, True, None, "1", 10**400], "a whole number, between 1 and 9"),
    "share": ([0, 1.0, float("nan"), float("inf"), "x", False], "a number, above 0 and below 1"),
    "loud": ([0, None, "yes"], "True or False"),
    "name": (["", "b", None, 5, "a.txt "], "auto or a file"),
    "words": (["a", ("",), (1,), None], "a text or several, none empty"),
    "bias": (
        [{1: 6}, {1: float("nan")}, {1: float("inf")}, {"1": 1}, {True: 1}, {1: "1"}, [1], None],
        "numbers or -inf by token id, between -5 and 5",
    ),
    "colour": (["green", None, 1], "one of red, blue"),
    "when": ([0, 1, "soon", None], "one of False, True, later"),
}


def test_values_that_are_allowed() -> None:
    for name, values in RIGHT.items():
        for value in values:
            assert problems(Table(**{name: value})) == [], (name, value)


def test_values_that_are_not() -> None:
    for name, (values, expected) in WRONG.items():
        for value in values:
            assert problems(Table(**{name: value})) == [f"{name}={value!r}: expected {expected}"]


def test_a_line_says_everything() -> None:
    lines = {one.name: one for one in options_of(Table)}
    assert list(lines) == list(RIGHT) == list(WRONG)
    assert [lines[name].flag for name in ("count", "words")] == ["--count", "--word"]
    shown = {name: one.default_text for name, one in lines.items()}
    assert (shown["count"], shown["share"], shown["bias"]) == ("2", "chosen", "none")
    assert lines["words"].facts.openai == ("words",)
    assert Table().bias is not Table().bias  # no default is shared


def test_the_schema_says_the_same() -> None:
    schema = json.loads(json.dumps(json_schema(Table)))["properties"]
    assert schema["count"] == {
        "type": "integer", "minimum": 1, "maximum": 9, "default": 2, "description": "A count.",
        "x-openai": [],
    }  # fmt: skip
    assert schema["share"]["anyOf"] == [
        {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
        {"type": "null"},
    ]
    assert schema["words"]["x-openai"] == ["words"]
    assert schema["colour"]["enum"] == ["red", "blue"]
    assert json_schema(GenerationOptions)["properties"]["max_new_tokens"]["x-openai"] == [
        "max_completion_tokens",
        "max_tokens",
    ]


def test_a_field_that_says_nothing_of_itself_is_no_option() -> None:
    @dataclass
    class Silent:
        number: int = field(default=1)

    @dataclass
    class Odd:
        number: complex = option(1j, "A number.")

    with pytest.raises(TypeError, match="number says nothing of itself; make it with option"):
        options_of(Silent)
    with pytest.raises(TypeError, match="number: no kind of option is annotated"):
        options_of(Odd)


def test_what_a_pack_may_ask_for_follows_the_same_rules() -> None:
    """Its fields are named as options are, and take what those take."""
    rules: dict[str, Option] = {one.name: one for one in options_of(GenerationOptions)}
    defaults = GenerationDefaults.__dataclass_fields__
    assert set(defaults) <= set(rules)
    for name in defaults:
        assert GenerationDefaults.__annotations__[name] in (
            GenerationOptions.__annotations__[name],
            f"{GenerationOptions.__annotations__[name]} | None",
        )


@given(
    name=st.sampled_from(sorted(GenerationDefaults.__dataclass_fields__)),
    value=st.one_of(st.integers(-9, 9), st.floats(), st.booleans(), st.text(max_size=2)),
)
@settings(max_examples=200, deadline=None)
def test_a_pack_and_a_request_refuse_the_same(name: str, value: object) -> None:
    def refused(make: Any) -> bool:
        try:
            make(**{name: value})
        except RequestError:
            return True
        return False

    assert refused(GenerationDefaults) == refused(GenerationOptions)


def test_a_pack_whose_task_could_never_answer_is_refused() -> None:
    with pytest.raises(RequestError, match="max_new_tokens=-5: expected a whole number, at least"):
        GenerationDefaults(max_new_tokens=-5)
    with pytest.raises(RequestError, match="stop=.*: expected a text or several, none empty"):
        TaskPack(stop=("",))
    with pytest.raises(ValueError, match="task pack: temperature=-1: expected a number"):
        TaskPack.from_json({"generation": {"temperature": -1, "unknown": "x"}})
