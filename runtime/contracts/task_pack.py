"""The task pack: what a prefix file carries besides keys and values, so that one file is all that a
task needs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from edgeprefix.runtime.contracts.generation_options import GenerationOptions
from edgeprefix.runtime.contracts.option import options_of
from edgeprefix.runtime.errors import RequestError

BEGINS = "begins_with_begin_token"
"""Field of a compiled prefix's recipe: whether its first position is the base's begin token."""


@dataclass(frozen=True, kw_only=True)
class GenerationDefaults:
    """How a task wants its text generated when the caller says nothing. `None` leaves the engine's
    own default.

    Names and allowed values are those of GenerationOptions. Raises RequestError for other values.
    """

    max_new_tokens: int | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None

    def __post_init__(self) -> None:
        _require_allowed(self, (field.name for field in dataclasses.fields(self)))


@dataclass(frozen=True, kw_only=True)
class TaskPack:
    """Prompt, labels, stops and history of a task."""

    prompt: str = "{input}"
    """Template that turns a row's fields into the prompt (see
    edgeprefix.runtime.contracts.prompt).
    """
    labels: tuple[str, ...] = ()
    """The options of a classification task, as they were trained; empty for generation."""
    stop: tuple[str, ...] = ()
    """Texts that end a generation; they are not part of its text."""
    generation: GenerationDefaults = field(default_factory=GenerationDefaults)
    recipe: Mapping[str, Any] = field(default_factory=dict)
    """How the prefix came about: method, length, learning rate, steps, data facts, versions."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """What was measured on validation rows, by name."""
    licence: str = ""
    continues_text: bool = False
    """True for a prefix compiled from a text: prompts go on within it, so they get no begin token
    of their own.
    """

    def __post_init__(self) -> None:
        _require_allowed(self, ("stop",))

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, in a fixed order."""
        data = dataclasses.asdict(self)
        if not self.continues_text:
            del data["continues_text"]
        data["generation"] = {
            key: value for key, value in data["generation"].items() if value is not None
        }
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TaskPack:
        """Reads `to_json`'s form. Raises ValueError naming a field of the wrong kind or with a
        value that is not allowed; unknown fields are ignored (MAY).
        """
        kinds: dict[str, type | tuple[type, ...]] = {
            "prompt": str,
            "labels": list,
            "stop": list,
            "generation": dict,
            "recipe": dict,
            "metrics": dict,
            "licence": str,
            "continues_text": bool,
        }
        values: dict[str, Any] = {}
        for key, kind in kinds.items():
            if key not in data:
                continue
            if not isinstance(data[key], kind):
                raise ValueError(f"task pack field {key!r} holds {type(data[key]).__name__}")
            values[key] = data[key]
        for key in ("labels", "stop"):
            if not all(isinstance(text, str) for text in values.get(key, [])):
                raise ValueError(f"task pack field {key!r} holds something that is not text")
            values[key] = tuple(values.get(key, ()))
        try:
            values["generation"] = _generation_from_json(values.get("generation", {}))
            return cls(**values)
        except RequestError as error:
            raise ValueError(f"task pack: {error}") from error


def _generation_from_json(data: Mapping[str, Any]) -> GenerationDefaults:
    known = {field.name for field in dataclasses.fields(GenerationDefaults)}
    return GenerationDefaults(**{key: value for key, value in data.items() if key in known})


def _require_allowed(holder: object, names: Iterable[str]) -> None:
    """Fields that are named as options of generation hold what those may be, or None."""
    rules = {one.name: one for one in options_of(GenerationOptions)}
    given = {name: getattr(holder, name) for name in names}
    wrong = [rules[name].problem(value) for name, value in given.items() if value is not None]
    if any(wrong):
        raise RequestError("; ".join(filter(None, wrong)))
