"""The verbs that give numbers or a prefix: a request, `submit`, a way to wait for its ticket."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal, Unpack, overload

from edgeprefix.runtime.contracts.prefix_file import Prefix
from edgeprefix.runtime.contracts.task_pack import TaskPack
from edgeprefix.runtime.engine.compile_request import CompileRequest, CompileSettings
from edgeprefix.runtime.engine.prepare import Prompt
from edgeprefix.runtime.engine.requests import Given, LogprobsRequest, NextLogprobsRequest
from edgeprefix.runtime.engine.score_request import ScoreRequest, ScoreSettings
from edgeprefix.runtime.engine.text_verbs import Submitter
from edgeprefix.runtime.renamed import takes_prefix_as_task
from edgeprefix.runtime.scoring.scores import Scores, TextLogprobs
from edgeprefix.runtime.work.slot import Logits

Options = Sequence[str] | None


class ScoreVerbs(Submitter):
    """Scores, log-probabilities, perplexity and compiling: at once, by the batch, for asyncio."""

    @takes_prefix_as_task
    def score(
        self,
        prompt: Prompt,
        options: Options = None,
        *,
        task: str | None = None,
        template: str | None = None,
        include_end: bool = True,
        normalise: bool = False,
        calibrate: bool = False,
        timeout_s: float | None = None,
    ) -> Scores:
        """Log-probability of each option as the continuation of the prompt; the options default to
        the task's labels.

        `include_end` counts the end-of-text token, as in training. `normalise` divides by the
        number of tokens. `calibrate` subtracts what the option gets for a content-free prompt
        (every field "N/A"), so that an option that is likely anyway does not win by that. Raises
        RequestError, PromptTooLongError, UnknownTaskError, RequestTimeout.
        """
        request = ScoreRequest(
            prompt, options, task=task, template=template, include_end=include_end,
            normalise=normalise, calibrate=calibrate, timeout_s=timeout_s,
        )  # fmt: skip
        return self.submit(request).wait()

    async def ascore(
        self, prompt: Prompt, options: Options = None, **settings: Unpack[ScoreSettings]
    ) -> Scores:
        """`score` for asyncio; cancelling the task cancels the request."""
        return await self._awaited(ScoreRequest(prompt, options, **settings))

    @overload
    def score_many(
        self,
        prompts: Iterable[Prompt],
        options: Options = None,
        *,
        return_exceptions: Literal[False] = False,
        **settings: Unpack[ScoreSettings],
    ) -> list[Scores]: ...
    @overload
    def score_many(
        self,
        prompts: Iterable[Prompt],
        options: Options = None,
        *,
        return_exceptions: bool,
        **settings: Unpack[ScoreSettings],
    ) -> list[Scores | Exception]: ...
    def score_many(
        self,
        prompts: Iterable[Prompt],
        options: Options = None,
        *,
        return_exceptions: bool = False,
        **settings: Unpack[ScoreSettings],
    ) -> list[Scores] | list[Scores | Exception]:
        """`score` for many prompts, which share the batch; errors as in `generate_many`."""
        requests = (ScoreRequest(prompt, options, **settings) for prompt in prompts)
        return self.submit_many(requests, return_exceptions=return_exceptions)

    @takes_prefix_as_task
    def score_each(
        self, prompts: Iterable[Prompt], options: Options = None, **settings: Unpack[ScoreSettings]
    ) -> Iterator[tuple[int, Scores]]:
        """`score` for many prompts: yields (row, scores), and takes prompts as slots get free."""
        return self.submit_each(ScoreRequest(prompt, options, **settings) for prompt in prompts)

    @takes_prefix_as_task
    def logprobs(
        self,
        prompt: Prompt,
        *,
        task: str | None = None,
        template: str | None = None,
        timeout_s: float | None = None,
    ) -> TextLogprobs:
        """Log-probability of every token of a text, which is used as it is without a template."""
        return self.submit(
            LogprobsRequest(prompt, task=task, template=template, timeout_s=timeout_s)
        ).wait()

    async def alogprobs(self, prompt: Prompt, **settings: Unpack[Given]) -> TextLogprobs:
        """`logprobs` for asyncio."""
        return await self._awaited(LogprobsRequest(prompt, **settings))

    @takes_prefix_as_task
    def next_logprobs(self, prompt: Prompt, **settings: Unpack[Given]) -> Logits:
        """Log-probabilities of the whole vocabulary after each token of a text, fp32 [S, V]."""
        return self.submit(NextLogprobsRequest(prompt, **settings)).wait()

    async def anext_logprobs(self, prompt: Prompt, **settings: Unpack[Given]) -> Logits:
        """`next_logprobs` for asyncio."""
        return await self._awaited(NextLogprobsRequest(prompt, **settings))

    @takes_prefix_as_task
    def perplexity(self, prompt: Prompt, **settings: Unpack[Given]) -> float:
        """exp of the mean negative log-probability of a text's tokens."""
        return self.submit(LogprobsRequest(prompt, **settings)).wait().perplexity

    async def aperplexity(self, prompt: Prompt, **settings: Unpack[Given]) -> float:
        """`perplexity` for asyncio."""
        return (await self.alogprobs(prompt, **settings)).perplexity

    @takes_prefix_as_task
    def compile(
        self,
        text: Prompt,
        *,
        name: str,
        task: str | None = None,
        pack: TaskPack | None = None,
        progress: Callable[[int], object] | None = None,
        timeout_s: float | None = None,
    ) -> Prefix:
        """Turns a text (or token ids, of a conversation, say) into a prefix: the base's own keys
        and values over it.

        With `task` the text stands behind that task's prefix, and both become one. The result is
        not loaded: `save` it, or give it to `load_prefix`. `pack` may add a prompt template, labels
        and the like. A prompt behind the result gets no begin-of-text token, as if both were one
        text. `progress` is told, on a thread of its own, how many tokens are done; what it raises
        ends the request. Raises RequestError, PromptTooLongError, RequestTimeout.
        """
        request = CompileRequest(
            text, name=name, task=task, pack=pack, progress=progress, timeout_s=timeout_s
        )
        return self.submit(request).wait()

    async def acompile(
        self, text: Prompt, *, name: str, **settings: Unpack[CompileSettings]
    ) -> Prefix:
        """`compile` for asyncio."""
        return await self._awaited(CompileRequest(text, name=name, **settings))
