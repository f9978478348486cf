"""What a caller asks of the engine: one class for each kind of request, all submitted alike."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypedDict, TypeVar, Unpack

from edgeprefix.runtime.engine.generations import make_generation
from edgeprefix.runtime.engine.prepare import Preparer, Prompt
from edgeprefix.runtime.generation.options import Settings
from edgeprefix.runtime.generation.sampled import OnPiece
from edgeprefix.runtime.renamed import takes_prefix_as_task, warn_renamed
from edgeprefix.runtime.scoring.scores import TextLogprobs
from edgeprefix.runtime.scoring.text_probes import DistributionProbe, TextProbe
from edgeprefix.runtime.tasks.chat import ChatInputs, Message
from edgeprefix.runtime.tasks.prefix_store import Loaded
from edgeprefix.runtime.work.completion import Completion
from edgeprefix.runtime.work.resident import ResidentPrefix
from edgeprefix.runtime.work.slot import Ids, Logits
from edgeprefix.runtime.work.ticket import Ticket
from edgeprefix.runtime.work.work import Work

R = TypeVar("R")


class EngineRequest(ABC, Generic[R]):
    """What `Engine.submit` takes; its ticket gives an R. `timeout_s` counts from submission."""

    timeout_s: float | None

    @abstractmethod
    def work(self, preparer: Preparer, ticket: Ticket[R]) -> Work:
        """The work that leads to the ticket's result. Raises what is wrong with the request."""


class Request(EngineRequest[Completion]):
    """One generation.

    Text is put into the task's prompt template as {input}; without a task it is used as it is.
    `template` overrides the task's own, settings override its defaults.

    >>> Request("name: Aromi", task="e2e", max_new_tokens=40).task
    'e2e'
    """

    @takes_prefix_as_task
    def __init__(
        self,
        prompt: Prompt,
        *,
        task: str | None = None,
        template: str | None = None,
        timeout_s: float | None = None,
        **settings: Unpack[Settings],
    ) -> None:
        self.prompt, self.task, self.template, self.timeout_s = prompt, task, template, timeout_s
        self.settings: Mapping[str, Any] = settings

    @property
    def prefix(self) -> str | None:
        """Deprecated: `task`."""
        warn_renamed("Request.prefix", "Request.task")
        return self.task

    def __repr__(self) -> str:
        settings = "".join(f", {name}={value!r}" for name, value in self.settings.items())
        return f"{type(self).__name__}({self._asked()!r}, task={self.task!r}{settings})"

    def work(
        self, preparer: Preparer, ticket: Ticket[Completion], *, on_piece: OnPiece | None = None
    ) -> Work:
        """Raises RequestError, PromptTooLongError, UnknownTaskError, TemplateError."""
        task = preparer.task(self.task)
        ids = self._ids(preparer, task)
        return make_generation(preparer, ids, task, self.settings, ticket=ticket, on_piece=on_piece)

    def _asked(self) -> object:
        return self.prompt

    def _ids(self, preparer: Preparer, task: Loaded | None) -> Ids:
        return preparer.prompt_ids(self.prompt, task, template=self.template)


class ChatRequest(Request):
    """The next message of a conversation, in the base's own chat template. Its work raises
    RequestError when the base has none or refuses the messages, MissingExtraError without Jinja.
    """

    def __init__(
        self,
        messages: Sequence[Message],
        *,
        task: str | None = None,
        timeout_s: float | None = None,
        inputs: ChatInputs | None = None,
        **settings: Unpack[Settings],
    ) -> None:
        super().__init__((), task=task, timeout_s=timeout_s, **settings)
        self.messages = messages
        self.inputs: ChatInputs = inputs or {}
        """Tools, documents and variables for the template."""

    def _asked(self) -> object:
        return self.messages

    def _ids(self, preparer: Preparer, task: Loaded | None) -> Ids:
        return preparer.prompt_ids(preparer.chat_ids(self.messages, **self.inputs), task)


class StreamedRequest(EngineRequest[Completion]):
    """A generation whose pieces go to `on_piece`, on the engine's thread: it must not wait."""

    def __init__(self, request: Request, on_piece: OnPiece) -> None:
        self.timeout_s = request.timeout_s
        self._request, self._on_piece = request, on_piece

    def work(self, preparer: Preparer, ticket: Ticket[Completion]) -> Work:
        """As the request's own."""
        return self._request.work(preparer, ticket, on_piece=self._on_piece)


class Given(TypedDict, total=False):
    """What may be given by name with every prompt."""

    task: str | None
    template: str | None
    timeout_s: float | None


class GenerateSettings(Settings, Given, total=False):
    """What may be given by name to a generation."""


@dataclass(frozen=True)
class TextRequest(EngineRequest[R]):
    """A request about a prompt. Raises like a generation."""

    prompt: Prompt
    task: str | None = field(default=None, kw_only=True)
    template: str | None = field(default=None, kw_only=True)
    timeout_s: float | None = field(default=None, kw_only=True)

    def _text(self, preparer: Preparer) -> tuple[Ids, ResidentPrefix | None]:
        """The text in tokens, and what stands before it."""
        task = preparer.task(self.task)
        tokens = preparer.prompt_ids(self.prompt, task, template=self.template)
        preparer.require_room(task, len(tokens), "the text")
        return tokens, None if task is None else task.prefix


@dataclass(frozen=True)
class LogprobsRequest(TextRequest[TextLogprobs]):
    """Log-probability of every token of a text; see `Engine.logprobs`."""

    def work(self, preparer: Preparer, ticket: Ticket[TextLogprobs]) -> Work:
        """Feeds the text."""
        tokens, prefix = self._text(preparer)
        return TextProbe(tokens=tokens, prefix=prefix, ticket=ticket)


@dataclass(frozen=True)
class NextLogprobsRequest(TextRequest[Logits]):
    """Log-probabilities of the whole vocabulary after each token of a text, fp32 [S, V]."""

    def work(self, preparer: Preparer, ticket: Ticket[Logits]) -> Work:
        """Feeds the text."""
        tokens, prefix = self._text(preparer)
        return DistributionProbe(tokens=tokens, prefix=prefix, ticket=ticket)
