"""`edgeprefix compile`: a text becomes a prefix, through the bundle's own graph; no training, no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeprefix.runtime.cli.common import Bundle, Providers, Threads, errors
from edgeprefix.runtime.contracts.manifest import Manifest
from edgeprefix.runtime.contracts.prefix_file import DTYPES
from edgeprefix.runtime.contracts.task_pack import TaskPack
from edgeprefix.runtime.engine import Engine
from edgeprefix.runtime.errors import DataError, OutputError

compile_app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@compile_app.command(name="compile")
def compile_text(
    bundle: Bundle,
    out: Annotated[Path, typer.Option("--out", help="The prefix file to write.")],
    task: Annotated[str, typer.Option("--task", help="Name of the task.")],
    text: Annotated[
        str | None, typer.Option("--text", help="The text, for example a system prompt with examples.")
    ] = None,
    text_file: Annotated[Path | None, typer.Option("--text-file", help="A file with the text.")] = None,
    prompt: Annotated[str, typer.Option("--prompt", help="Prompt template of the task.")] = "{input}",
    labels: Annotated[str | None, typer.Option("--labels", help="Labels a,b,… of a classification.")] = None,
    stop: Annotated[list[str] | None, typer.Option("--stop", help="Text that ends an output; repeatable.")] = None,
    behind: Annotated[Path | None, typer.Option("--prefix", help="A prefix that stands before the text.")] = None,
    dtype: Annotated[str, typer.Option("--dtype", help=f"Precision of the file: {', '.join(DTYPES)}.")] = "fp16",
    force: Annotated[bool, typer.Option("--force", help="Replace an existing --out.")] = False,
    threads: Threads = None,
    providers: Providers = None,
) -> None:
    """Turn a text into a prefix file: prompting with it then costs nothing but its positions."""
    if (text is None) == (text_file is None):
        raise typer.BadParameter("give either --text or --text-file")
    if out.exists() and not force:
        raise OutputError(f"{out} exists already; choose another --out, or pass --force to replace it")
    content = text if text is not None else _read(text_file)
    pack = TaskPack(prompt=prompt, labels=tuple(labels.split(",")) if labels else (), stop=tuple(stop or ()))
    capacity = Manifest.load(bundle).max_positions
    with Engine.load(bundle, max_batch=1, max_length=capacity, threads=threads, providers=providers or None) as engine:
        before = None if behind is None else engine.load_prefix(behind).name
        prefix = engine.compile(content, name=task, prefix=before, pack=pack).with_dtype(dtype)
    prefix.save(out)
    errors.print(f"{out}: task {task}, {prefix.length} positions, {out.stat().st_size:,} bytes", style="green")


def _read(path: Path | None) -> str:
    assert path is not None
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
