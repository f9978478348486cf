"""Optimum as the second exporter: its own export of a base, then adopted. Needs an environment with
the extra `[optimum]`.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

from edgeprefix.base.checkpoint import Checkpoint, find_checkpoint
from edgeprefix.base.quiet import quiet_transformers
from edgeprefix.export.adopt.bundle import adopt_into
from edgeprefix.export.adopt.source import open_source
from edgeprefix.runtime.contracts.files import atomic_folder
from edgeprefix.runtime.contracts.manifest import Manifest, bundle_files
from edgeprefix.runtime.errors import ExportError, MissingExtraError

_TASK = "text-generation-with-past"


def export_with_optimum(
    base: str | Path, out: str | Path, *, revision: str | None = None, force: bool = False
) -> Manifest:
    """Exports a base (`revision`: the hub's) with Optimum, in fp32, and makes a bundle of the
    result.

    Raises MissingExtraError without Optimum, ExportError when it refuses the base, and what `adopt`
    raises.

    >>> manifest = export_with_optimum("checkpoints/base", "bundle")  # doctest: +SKIP
    """
    require_optimum()
    target, checkpoint = Path(out), find_checkpoint(base, revision=revision)
    if not isinstance(checkpoint, Checkpoint):
        raise ExportError(
            f"Optimum reads checkpoints, and {base} is a GGUF file; leave --backend out, or give "
            "the checkpoint that it was made of"
        )
    checkpoint.config()  # what can be no base is refused before minutes are spent
    # Inside the bundle's folder, so that the graph can be linked instead of copied.
    with (
        atomic_folder(target, ours=bundle_files, force=force) as folder,
        tempfile.TemporaryDirectory(dir=folder) as name,
    ):
        _run_optimum(checkpoint.folder, Path(name))
        return adopt_into(folder, open_source(name), base=base, revision=revision, link=True)


def require_optimum() -> None:
    """Raises MissingExtraError when Optimum's exporter is not installed."""
    try:
        found = importlib.util.find_spec("optimum.exporters.onnx")
    except ModuleNotFoundError:
        found = None
    if found is None:
        raise MissingExtraError(
            "--backend optimum needs optimum-onnx, which cannot stand beside transformers 5; in "
            "an environment of its own, type: "
            "pip install 'edgeprefix[optimum]'"
        )


def _run_optimum(checkpoint: Path, folder: Path) -> None:
    # Only here: it takes seconds, and is not there with transformers 5
    from optimum.exporters.onnx import main_export

    with quiet_transformers(), _quiet():
        try:
            main_export(
                str(checkpoint),
                output=str(folder),
                task=_TASK,
                do_validation=False,
                trust_remote_code=False,
            )
        except (ValueError, KeyError, NotImplementedError, RuntimeError, TypeError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ExportError(f"Optimum cannot export {checkpoint}: {reason}") from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Tracing warns about every branch of the model, and Optimum reports what it does: not the
    user's business.
    """
    loggers = [logging.getLogger(name) for name in ("optimum", "optimum.exporters", "torch.onnx")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
