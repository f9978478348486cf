"""`export prefix`: from a training run, or from a PEFT adapter, to the one file that a task needs.

The trainer keeps its best prefix in the run's folder in the prefix file's own format, keys and
values computed and any reparametrisation folded. So exporting a run is checking: of the file, of
the base, of the numbers in the dtype asked for. A folder with an adapter_config.json goes
through `export/peft`.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from edgeprefix.base.checkpoint import find_checkpoint
from edgeprefix.export.peft import AdapterOptions, is_adapter, prefix_of_adapter
from edgeprefix.runtime.contracts.cache_scales import load_scales, require_fit
from edgeprefix.runtime.contracts.manifest import Manifest
from edgeprefix.runtime.contracts.prefix_file import DTYPES, Prefix
from edgeprefix.runtime.contracts.prompt import template_fields
from edgeprefix.runtime.errors import ExportError, PrefixFileError

RUN_PREFIX = "prefix.safetensors"


def export_prefix(
    run: str | Path,
    out: str | Path,
    *,
    base: str | Path | None = None,
    revision: str | None = None,
    bundle: str | Path | None = None,
    dtype: str = "fp32",
    task: str | None = None,
    prompt: str | None = None,
    task_id: int | None = None,
) -> Prefix:
    """Writes the prefix of a training run or a PEFT adapter as a prefix file, whole or not at all;
    gives it back.

    `run`, `base`, `revision`, `task`, `prompt` and `task_id` are those of `read_prefix`; with
    `bundle` it must fit that bundle. `dtype` is fp32, fp16, bf16 or int8. Raises ExportError,
    PrefixFileError, CheckpointError, BundleError, BaseMismatchError, CapacityError, TemplateError,
    OutputError.

    >>> export_prefix("runs/e2e", "e2e.safetensors", dtype="fp16")  # doctest: +SKIP
    """
    if dtype not in DTYPES:
        raise ExportError(f"dtype {dtype!r} is unknown; choose one of {', '.join(DTYPES)}")
    require_other_file(run, out)
    prefix = read_prefix(
        run, base=base, revision=revision, task=task, prompt=prompt, task_id=task_id
    )
    exported = prefix.with_dtype(dtype)
    if bundle is not None:
        require_bundle(exported, bundle)
    exported.save(out)
    return exported


def require_bundle(prefix: Prefix, bundle: str | Path) -> None:
    """Raises BaseMismatchError when a prefix belongs to another base than a bundle, CapacityError
    when the bundle's int8 cache would cut it.
    """
    manifest = Manifest.load(bundle)
    manifest.base.require_same(prefix.base, what=f"prefix {prefix.name!r}")
    if manifest.cache_dtype == "int8":
        require_fit(prefix.layers, load_scales(bundle, manifest.layers), where=repr(prefix.name))


def read_prefix(
    run: str | Path,
    *,
    base: str | Path | None = None,
    revision: str | None = None,
    task: str | None = None,
    prompt: str | None = None,
    task_id: int | None = None,
) -> Prefix:
    """The prefix of a training run's folder, of a prefix file, or of a PEFT adapter's folder.

    `base` is what the prefix must belong to; a PEFT adapter, which knows its base by name only,
    needs it where that name leads nowhere. `revision` is the hub's branch, tag or commit. `task`
    and `prompt` replace the task's name and prompt template. `task_id` chooses among the tasks of a
    PEFT multitask adapter. Raises ExportError, PrefixFileError, CheckpointError, BaseMismatchError,
    TemplateError.
    """
    folder = Path(run)
    if not (folder / RUN_PREFIX).is_file() and is_adapter(folder):
        options = AdapterOptions(task=task, prompt=prompt, task_id=task_id)
        return prefix_of_adapter(folder, base=base, revision=revision, options=options)
    if task_id is not None:
        raise ExportError(f"{run} is no PEFT adapter and holds one task; leave the task id out")
    prefix = _renamed(Prefix.load(_prefix_of(folder)), task, prompt)
    if base is not None:
        identity = find_checkpoint(base, revision=revision).identity()
        identity.require_same(prefix.base, what=f"prefix {prefix.name!r}")
    return prefix


def require_other_file(run: str | Path, out: str | Path) -> None:
    """Raises ExportError when `out` is a file that the run or adapter itself lives on: its prefix,
    or anything else in its folder that is no exported prefix.
    """
    source, target = Path(run), Path(out)
    if not target.is_file():
        return
    if target.samefile(source / RUN_PREFIX if (source / RUN_PREFIX).is_file() else source):
        raise ExportError(
            f"{out} is the file that is exported; writing onto it would lose what was trained: "
            "choose another --out"
        )
    if source.is_dir() and target.parent.samefile(source) and not _is_prefix(target):
        raise ExportError(f"{out} is a file of {run} itself; choose another --out")


def _is_prefix(path: Path) -> bool:
    try:
        Prefix.load(path)
    except PrefixFileError:
        return False
    return True


def _renamed(prefix: Prefix, task: str | None, prompt: str | None) -> Prefix:
    if prompt is not None:
        template_fields(prompt)
        prefix = dataclasses.replace(prefix, pack=dataclasses.replace(prefix.pack, prompt=prompt))
    return prefix if task is None else dataclasses.replace(prefix, name=task)


def _prefix_of(run: Path) -> Path:
    """The prefix file in a run's folder. Raises ExportError when there is none."""
    if run.is_file():
        return run
    if not run.is_dir():
        raise ExportError(
            f"{run}: no such folder; give the --out of an `edgeprefix train`, or a PEFT adapter's "
            "folder"
        )
    if (run / RUN_PREFIX).is_file():
        return run / RUN_PREFIX
    raise ExportError(
        f"{run} holds neither {RUN_PREFIX} nor adapter_config.json: it is no training run (or one "
        "that was stopped before its "
        "first validation) and no PEFT adapter; give the --out of an `edgeprefix train`, or go on "
        "with "
        "`edgeprefix train --resume`"
    )
