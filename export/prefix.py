"""`export prefix`: from a training run to the one file that a task needs.

The trainer keeps its best prefix in the run's folder in the prefix file's own format, keys and values computed and any
reparametrisation folded. So exporting is checking: of the file, of the base, of the numbers in the dtype asked for.
"""

from __future__ import annotations

from pathlib import Path

from edgeprefix.export.base import resolve_base
from edgeprefix.runtime.contracts.identity import checkpoint_identity
from edgeprefix.runtime.contracts.prefix_file import DTYPES, Prefix
from edgeprefix.runtime.errors import ExportError

RUN_PREFIX = "prefix.safetensors"


def export_prefix(run: str | Path, out: str | Path, *, base: str | Path | None = None, dtype: str = "fp32") -> Prefix:
    """Writes the best prefix of a training run as a prefix file, whole or not at all; gives it back.

    `run` is the folder that `edgeprefix train` wrote. With `base`, the prefix must belong to it. `dtype` is fp32, fp16,
    bf16 or int8.
    Raises ExportError, PrefixFileError, CheckpointError, BaseMismatchError, OutputError.

    >>> export_prefix("runs/e2e", "e2e.safetensors", dtype="fp16")  # doctest: +SKIP
    """
    if dtype not in DTYPES:
        raise ExportError(f"dtype {dtype!r} is unknown; choose one of {', '.join(DTYPES)}")
    prefix = Prefix.load(_prefix_of(Path(run)))
    if base is not None:
        checkpoint_identity(resolve_base(base)).require_same(prefix.base, what=f"prefix {prefix.name!r}")
    exported = prefix.with_dtype(dtype)
    exported.save(out)
    return exported


def _prefix_of(run: Path) -> Path:
    """The prefix file in a run's folder. Raises ExportError when there is none."""
    if run.is_file():
        return run
    if not run.is_dir():
        raise ExportError(f"{run}: no such folder; give the --out of an `edgeprefix train`")
    if (run / RUN_PREFIX).is_file():
        return run / RUN_PREFIX
    if (run / "adapter_config.json").is_file():
        raise ExportError(f"{run} is a PEFT adapter, which cannot be exported yet; train with `edgeprefix train`")
    raise ExportError(
        f"{run} holds no {RUN_PREFIX}: it is no training run, or one that was stopped before its first validation; "
        "give the --out of an `edgeprefix train`, or go on with `edgeprefix train --resume`"
    )
