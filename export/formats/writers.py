"""Prefixes for other runtimes: which formats there are, and what each needs."""

from __future__ import annotations

from pathlib import Path

from edgeprefix.base.checkpoint import find_checkpoint
from edgeprefix.export.formats.llama_cpp import write_llama_cpp
from edgeprefix.export.formats.onnx_adapter import write_onnx_adapter
from edgeprefix.export.formats.openvino import write_openvino
from edgeprefix.export.formats.peft import write_peft
from edgeprefix.runtime.contracts.prefix_file import Prefix
from edgeprefix.runtime.errors import ExportError

FORMATS = {
    "edgeprefix": "fp32",
    "peft": "fp32",
    "onnx-adapter": "fp32",
    "llama.cpp": "fp16",
    "openvino": "fp32",
}
"""Name of each format, and the dtype it has when nobody asks for one."""


def write_prefix(
    prefix: Prefix,
    out: str | Path,
    *,
    format: str = "edgeprefix",  # noqa: A002  # the command's own word
    dtype: str | None = None,
    base: str | None = None,
    revision: str | None = None,
    force: bool = False,
) -> None:
    """Writes a prefix in one of FORMATS, whole or not at all. See docs/formats.md.

    `dtype` defaults to the format's own. `base` is the checkpoint: llama.cpp's format needs its
    configuration (of the hub's `revision`), PEFT's folder names it. `force` replaces an existing
    PEFT folder. Raises ExportError, PrefixFileError, CheckpointError, OutputError.
    """
    if format not in FORMATS:
        raise ExportError(f"format {format!r} is unknown; choose one of {', '.join(FORMATS)}")
    chosen = dtype or FORMATS[format]
    if format == "edgeprefix":
        prefix.with_dtype(chosen).save(out)
    elif format == "peft":
        _require_fp32(chosen)
        write_peft(prefix, out, base or prefix.base.name, force=force)
    elif format == "onnx-adapter":
        write_onnx_adapter(prefix, out, dtype=chosen)
    elif format == "openvino":
        write_openvino(prefix, out, dtype=chosen)
    else:
        if base is None:
            raise ExportError(
                "the format llama.cpp depends on the architecture of the base: give it with "
                "--base BASE"
            )
        config = find_checkpoint(base, revision=revision).config()
        write_llama_cpp(prefix, out, config, dtype=chosen)


def _require_fp32(dtype: str) -> None:
    if dtype != "fp32":
        raise ExportError(f"PEFT folders are written as fp32, not {dtype}; leave --dtype out")
