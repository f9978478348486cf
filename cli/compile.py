"""`edgeprefix compile`: a text becomes a prefix, through the bundle's own graph; no training, no
torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from edgeprefix.cli.common import Bundle, Providers, Threads, errors, progress_bar
from edgeprefix.cli.flags import flag
from edgeprefix.runtime.contracts.generation_options import GenerationOptions
from edgeprefix.runtime.contracts.manifest import TOKENIZER_FILE, Manifest
from edgeprefix.runtime.contracts.prefix_file import DTYPES, Prefix
from edgeprefix.runtime.contracts.prompt import unescaped
from edgeprefix.runtime.contracts.strict_json import read_value
from edgeprefix.runtime.contracts.task_pack import TaskPack
from edgeprefix.runtime.contracts.template_text import TemplateText
from edgeprefix.runtime.contracts.tokenizer import TextTokenizer
from edgeprefix.runtime.engine import Engine
from edgeprefix.runtime.engine.prepare import Prompt
from edgeprefix.runtime.engine.rounding_loss import rounding_loss
from edgeprefix.runtime.errors import DataError, OutputError
from edgeprefix.runtime.tasks.chat_prefix import chat_beginning

_MEASURED_TOKENS = 32  # of the rounding's loss

compile_app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass(frozen=True, kw_only=True)
class _Source:
    """What is compiled: its tokens or text, how many tokens that makes, and the prompt template
    that goes with it.
    """

    content: Prompt
    tokens: int
    prompt: str


@compile_app.command(name="compile")
def compile_text(
    bundle: Bundle,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The prefix file to write.")],
    task: Annotated[str, typer.Option("--task", metavar="NAME", help="Name of the task.")],
    text: Annotated[
        str | None,
        typer.Option("--text", help="The text, for example a system prompt with examples."),
    ] = None,
    text_file: Annotated[
        Path | None, typer.Option("--text-file", metavar="FILE", help="A file with the text.")
    ] = None,
    messages: Annotated[
        Path | None,
        typer.Option(
            "--messages",
            metavar="FILE",
            help='JSON list of chat messages, [{"role": "system", "content": …}, …].',
        ),
    ] = None,
    ids: Annotated[
        Path | None, typer.Option("--ids", metavar="FILE", help="JSON list of token ids.")
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Option(
            "--prompt",
            help=(
                "Prompt template of the task; default {input}, with --messages the chat template's "
                "rest."
            ),
        ),
    ] = None,
    labels: Annotated[
        str | None, typer.Option("--labels", help="Labels a,b,… of a classification.")
    ] = None,
    stop: Annotated[list[str] | None, flag(GenerationOptions, "stop", default="none")] = None,
    begin: Annotated[
        bool,
        typer.Option(
            "--begin/--no-begin",
            help="Whether the tokenizer may put its begin token before the text.",
        ),
    ] = True,
    special: Annotated[
        bool,
        typer.Option(
            "--special/--no-special",
            help="Whether special tokens in the text count; else they are letters like any.",
        ),
    ] = False,
    behind: Annotated[
        Path | None,
        typer.Option("--prefix", metavar="FILE", help="A prefix that stands before the text."),
    ] = None,
    dtype: Annotated[
        str, typer.Option("--dtype", help=f"Precision of the file: {', '.join(DTYPES)}.")
    ] = "fp16",
    measure: Annotated[
        bool,
        typer.Option(
            "--measure/--no-measure", help="Say what the file's precision costs against fp32."
        ),
    ] = True,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing --out.")] = False,
    threads: Threads = None,
    providers: Providers = None,
) -> None:
    """Turn a text into a prefix file: prompting with it then costs nothing but its positions."""
    if sum(source is not None for source in (text, text_file, messages, ids)) != 1:
        raise typer.BadParameter("give one of --text, --text-file, --messages and --ids")
    if dtype not in DTYPES:
        raise typer.BadParameter(f"{dtype!r} is none of {', '.join(DTYPES)}", param_hint="--dtype")
    if out.exists() and not force:
        raise OutputError(
            f"{out} exists already; choose another --out, or pass --force to replace it"
        )
    source = _source(
        bundle,
        text=text,
        text_file=text_file,
        messages=messages,
        ids=ids,
        begin=begin,
        special=special,
    )
    before = None if behind is None else Prefix.load(behind)
    pack = TaskPack(
        prompt=source.prompt if prompt is None else unescaped(prompt),
        labels=tuple(labels.split(",")) if labels else (),
        stop=tuple(map(unescaped, stop or ())),
    )
    room = source.tokens + (0 if before is None else before.length) + _MEASURED_TOKENS
    with Engine.load(
        bundle, max_batch=1, max_length=room, threads=threads, providers=providers or None
    ) as engine:
        name = None if before is None else engine.load_prefix(before).name
        with _bar(source.tokens) as progress:
            prefix = engine.compile(
                source.content, name=task, task=name, pack=pack, progress=progress
            )
        prefix.with_dtype(dtype).save(out)
        errors.print(
            f"{out}: task {task}, {prefix.length} positions, {out.stat().st_size:,} bytes",
            style="green",
            soft_wrap=True,
        )
        if measure and dtype != "fp32":
            _say_loss(engine, prefix, dtype)


def _source(
    bundle: Path,
    *,
    text: str | None,
    text_file: Path | None,
    messages: Path | None,
    ids: Path | None,
    begin: bool,
    special: bool,
) -> _Source:
    """The one that was given; its tokens are counted before the graph is opened, so that the cache
    gets just that size.
    """
    manifest = Manifest.load(bundle)
    tokenizer = TextTokenizer.from_file(
        bundle / TOKENIZER_FILE, end_ids=manifest.end_ids, vocabulary=manifest.vocabulary
    )
    if ids is not None:
        tokens = _json_list(ids, int, "token ids, [1, 2, …]")
        return _Source(content=tokens, tokens=len(tokens), prompt="{input}")
    if messages is not None:
        conversation = _json_list(messages, dict, 'messages, [{"role": "system", "content": …}, …]')
        beginning = chat_beginning(manifest, tokenizer, conversation)
        if beginning.date is not None:
            errors.print(
                f"the chat template writes today's date into the text ({beginning.date}), and the "
                "prefix keeps it; compile it again when the date matters",
                style="yellow",
                markup=False,
                soft_wrap=True,
            )
        tokens = tokenizer.encode_prompt(beginning.text)
        return _Source(content=tokens, tokens=len(tokens), prompt=beginning.prompt)
    content = text if text is not None else _read(text_file)
    if special:
        content = TemplateText(content)
    if not begin:
        tokens = tokenizer.encode_behind(content)
        return _Source(content=tokens, tokens=len(tokens), prompt="{input}")
    return _Source(content=content, tokens=len(tokenizer.encode_prompt(content)), prompt="{input}")


def _say_loss(engine: Engine, prefix: Prefix, dtype: str) -> None:
    if prefix.length + _MEASURED_TOKENS > engine.max_length:
        errors.print(
            "the base has no positions left to measure the file's precision on", style="yellow"
        )
        return
    errors.print(str(rounding_loss(engine, prefix, dtype, tokens=_MEASURED_TOKENS)), soft_wrap=True)


@contextmanager
def _bar(tokens: int) -> Iterator[Callable[[int], None]]:
    """A progress bar over tokens, on the terminal only."""
    with progress_bar() as bar:
        running = bar.add_task("compiling", total=tokens)
        yield lambda done: bar.update(running, completed=done)


def _json_list(path: Path, kind: type, expected: str) -> list[Any]:
    try:
        values = read_value(_read(path))
    except ValueError as error:
        raise DataError(f"{path} is no JSON: {error}; expected a list of {expected}") from error
    if not isinstance(values, list) or not all(isinstance(value, kind) for value in values):
        raise DataError(f"{path} holds no list of {expected}")
    return values


def _read(path: Path | None) -> str:
    assert path is not None
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
