"""`export decoder`: from a base to a verified bundle folder, whole or not at all."""

from __future__ import annotations

import importlib.metadata
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx_ir as ir
from tokenizers import Tokenizer

from edgeprefix.base import Base, load_base
from edgeprefix.base.checkpoint import find_checkpoint
from edgeprefix.base.gguf.stored import stored_matrices
from edgeprefix.base.quiet import quiet_transformers
from edgeprefix.base.streaming import hollow_model, untouched
from edgeprefix.export.calibration import Calibration, measure_scales
from edgeprefix.export.generation_defaults import say_dropped_defaults
from edgeprefix.export.passes import make_lean
from edgeprefix.export.passes.cache import QuantiseCachePass
from edgeprefix.export.passes.half import BeyondHalfError, beyond_half
from edgeprefix.export.planned import Plan, with_tied_names
from edgeprefix.export.positions import survey_positions
from edgeprefix.export.precision import to_precision
from edgeprefix.export.rotary import plan_rotary
from edgeprefix.export.rounding.calibrated import calibrated_plan
from edgeprefix.export.rounding.plan import FittedPlan
from edgeprefix.export.size import Wanted, goal_of
from edgeprefix.export.smoke import smoke_base
from edgeprefix.export.trace import Layer, survey_layers, trace_decoder
from edgeprefix.export.verify import Expected, graph_side, torch_side
from edgeprefix.export.weights import weight_bytes, write_model
from edgeprefix.runtime.contracts.cache_scales import LayerScales, save_scales
from edgeprefix.runtime.contracts.files import atomic_folder
from edgeprefix.runtime.contracts.manifest import (
    AS_STORED,
    GRAPH_FILE,
    PRECISIONS,
    TOKENIZER_FILE,
    Manifest,
    bundle_files,
    record_files,
)
from edgeprefix.runtime.contracts.positions import Positions
from edgeprefix.runtime.errors import CheckpointError, ExportError, ParityError
from edgeprefix.runtime.version import __version__

STAGES = ("load", "trace", "optimise", "round", "quantise", "write", "verify")

_PACKAGES = ("torch", "transformers", "onnx", "onnxruntime")

Progress = Callable[[str, float], None]
"""Told the stage (one of STAGES) and how much of it is done, from 0 to 1."""


def silent(stage: str, done: float) -> None:
    """A progress that shows nothing."""


def export_decoder(
    base: str | Path,
    out: str | Path,
    *,
    revision: str | None = None,
    precision: str = "fp32",
    cache: str | None = None,
    calibrate: Sequence[str | Path] = (),
    rounding: Plan | Wanted | None = None,
    fitted: Callable[[FittedPlan], None] | None = None,
    text: str | Path | None = None,
    allow_loss: float | None = None,
    force: bool = False,
    verify: bool = True,
    smoke: bool = False,
    progress: Progress = silent,
) -> Manifest:
    """Exports a base as a bundle folder: graph, weights, tokenizer and manifest.

    `revision` is the branch, tag or commit of a base from the hub. `precision` is fp32, fp16 (for
    GPUs), int8 or int4 (weights only), or as-stored (the own numbers of a base that is a GGUF
    file). `cache` "int8" holds keys and values in 8 bits (CPU, ONNX Runtime 1.27 or newer); by
    default they are fp32, or fp16 with fp16 weights. `calibrate` are what an int8 cache must hold
    besides ordinary text: prefix files, folders of them, and files of rows; int4 weights are fitted
    to the rows, too. `rounding` says how weights are rounded, by name; with int8 and int4 those
    that it does not name go to the nearest step. Or it says what is wanted of int4: weights are
    then fitted to text, which takes minutes, and `fitted` is told how. The bundle is compared with
    torch before it takes its place, unless `verify` is false: on `text` (a text file, or rows) or
    on what the base draws itself its perplexity may be `allow_loss` times torch's, by default what
    its precision is allowed. With `smoke` a two-layer copy is exported and verified first. An
    existing bundle is replaced only with `force`, and only by a whole one; any other folder stays.
    Raises CheckpointError, ExportError, ParityError, OutputError, and what reading the files of
    `calibrate` and `text` raises.

    >>> manifest = export_decoder("checkpoints/base", "bundle", precision="int8")  # doctest: +SKIP
    """
    _check(precision, cache, calibrate, rounding)
    calibration = Calibration.read(calibrate)
    with atomic_folder(out, ours=bundle_files, force=force) as folder:
        progress("load", 0.0)
        if smoke:
            _smoke_test(base, revision)
        loaded = load_base(base, revision=revision)
        if loaded.tokenizer is None:
            raise CheckpointError(
                f"{base} has no tokenizer; a bundle needs one: copy tokenizer.json into the "
                "checkpoint's folder; of a GGUF file take one with its vocabulary"
            )
        progress("load", 1.0)
        layers, graph = build_graph(loaded, progress=progress)
        progress("round", 0.0)
        plan = _plan(
            loaded,
            graph,
            precision,
            rounding,
            texts=calibration.texts,
            fitted=fitted,
            progress=lambda done: progress("round", done),
        )
        progress("quantise", 0.0)
        scales = measure_scales(loaded, calibration) if cache else None
        manifest = write_bundle(
            loaded,
            layers,
            to_precision(graph, precision, with_tied_names(plan, loaded.model)),
            folder,
            precision=precision,
            scales=scales,
            progress=progress,
        )
        if verify:
            progress("verify", 0.0)
            expected = torch_side(folder, manifest, loaded, tasks=calibration.prefixes, text=text)
            del loaded, graph  # the graph is opened beside the logits, not beside the whole model
            manifest = verified_manifest(folder, manifest, expected, allow_loss=allow_loss)
        progress("verify", 1.0)
        return manifest


def _check(
    precision: str,
    cache: str | None,
    calibrate: Sequence[str | Path],
    rounding: Plan | Wanted | None,
) -> None:
    """Raises ExportError when these do not go together."""
    if precision not in PRECISIONS:
        raise ExportError(
            f"precision {precision!r} is unknown; choose one of {', '.join(PRECISIONS)}"
        )
    if cache not in (None, "int8") or (cache and precision == "fp16"):
        raise ExportError(
            f"cache {cache!r} with precision {precision} is unknown; leave it out, or choose int8 "
            "with fp32, int8, int4 or as-stored"
        )
    wanted = isinstance(rounding, Wanted)
    if wanted and precision != "int4":
        raise ExportError(
            f"rounding is fitted to text for precision int4, not {precision}: choose int4, or "
            "leave out what was wanted"
        )
    if calibrate and cache is None and not wanted:
        raise ExportError(
            "calibrate is for an int8 cache and for int4 weights that are fitted to text: choose "
            "cache int8 or precision int4, or leave it out"
        )


def _plan(
    base: Base,
    graph: ir.Model,
    precision: str,
    rounding: Plan | Wanted | None,
    *,
    texts: Sequence[str],
    fitted: Callable[[FittedPlan], None] | None,
    progress: Callable[[float], None],
) -> Plan:
    """How the weights of a lean graph are rounded, as far as not to the nearest step."""
    if rounding is None:
        return stored_matrices(base) if precision == AS_STORED else {}
    if not isinstance(rounding, Wanted):
        return rounding
    found = calibrated_plan(base, goal_of(rounding, base, graph), texts=texts, progress=progress)
    if fitted is not None:
        fitted(found)
    return found.matrices


def _smoke_test(base: str | Path, revision: str | None) -> None:
    """Exports two layers in a folder that is thrown away. Raises ExportError, ParityError."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        small = smoke_base(find_checkpoint(base, revision=revision).config(), folder)
        layers, graph = build_graph(small)
        manifest = write_bundle(
            small, layers, to_precision(graph, "fp32"), folder, precision="fp32"
        )
        verified_manifest(folder, manifest, torch_side(folder, manifest, small))


def build_graph(base: Base, *, progress: Progress = silent) -> tuple[tuple[Layer, ...], ir.Model]:
    """The lean fp32 graph of a loaded base, its weights not yet written. Raises ExportError."""
    with quiet_transformers():
        progress("trace", 0.0)
        model = base.model if base.state is None else hollow_model(base.model.config)
        layers = survey_layers(model)
        plan = plan_rotary(model, base.max_positions)
        graph = trace_decoder(
            model if base.state is None else untouched(model), layers, plan, state=base.state
        )
    progress("optimise", 0.0)
    return layers, make_lean(graph)


def write_bundle(
    base: Base,
    layers: tuple[Layer, ...],
    model: ir.Model,
    folder: Path,
    *,
    precision: str,
    scales: Sequence[LayerScales] | None = None,
    progress: Progress = silent,
) -> Manifest:
    """Writes graph, weights, tokenizer and manifest; the report of `verify` is not in it yet.
    `scales` make the cache int8.
    """
    if scales is not None:
        QuantiseCachePass(scales)(model)
        save_scales(scales, folder)
    try:
        _write(model, base.tokenizer, folder, progress)
    except BeyondHalfError as error:  # of a weight of the graph, under a name of the graph's
        raise ExportError(_beyond_half(base) or str(error)) from error
    cache_dtype = "int8" if scales is not None else "float16" if precision == "fp16" else "float32"
    vocabulary = _vocabulary(model, base.config)
    manifest = base_manifest(
        base, layers, folder, vocabulary=vocabulary, precision=precision, cache_dtype=cache_dtype
    )
    manifest.save(folder)
    return manifest


def _write(model: ir.Model, tokenizer: Tokenizer | None, folder: Path, progress: Progress) -> None:
    total, written = weight_bytes(model), 0

    def advance(size: int) -> None:
        nonlocal written
        written += size
        progress("write", written / max(total, 1))

    progress("write", 0.0)
    write_model(model, folder / GRAPH_FILE, advance=advance)
    if tokenizer is not None:
        (folder / TOKENIZER_FILE).write_text(tokenizer.to_str(), encoding="utf-8")


def _beyond_half(base: Base) -> str | None:
    """The first of the base's own tensors that fp16 cannot hold."""
    problems = (
        beyond_half(name, parameter.detach().float().numpy())
        for name, parameter in base.model.named_parameters()
    )
    return next((f"{base.identity.name}: {problem}" for problem in problems if problem), None)


def base_manifest(
    base: Base,
    layers: tuple[Layer, ...],
    folder: Path,
    *,
    vocabulary: int,
    precision: str,
    cache_dtype: str,
) -> Manifest:
    """What is to be said of a base and of the files that stand in the bundle's folder."""
    say_dropped_defaults(base.generation_settings, base.identity.name)
    return Manifest(
        base=base.identity,
        model_type=str(base.model.config.model_type),
        layers=tuple(layer.shape for layer in layers),
        vocabulary=vocabulary,
        max_positions=base.max_positions,
        precision=precision,
        cache_dtype=cache_dtype,
        end_ids=base.end_ids,
        begin_id=base.begin_id,
        pad_id=base.pad_id,
        chat_template=base.chat_template,
        special_tokens=dict(base.special_tokens) or None,
        positions=_positions(base),
        files=record_files(folder),
        made_with={name: importlib.metadata.version(name) for name in _PACKAGES}
        | {"edgeprefix": __version__},
    )


def _positions(base: Base) -> Positions:
    """By rehearsal, on a model without the numbers when the base is a big one."""
    with quiet_transformers():
        model = base.model if base.state is None else hollow_model(base.model.config)
        return survey_positions(model, base.max_positions)


def _vocabulary(model: ir.Model, config: Any) -> int:
    """V as the graph says it: some architectures pad or cut the vocabulary of their
    configuration.
    """
    shape = model.graph.outputs[0].shape
    size = shape[-1] if shape is not None else None
    return size if isinstance(size, int) else int(config.vocab_size)


def verified_manifest(
    folder: Path, manifest: Manifest, expected: Expected, *, allow_loss: float | None = None
) -> Manifest:
    """The manifest with its report. Raises ParityError when a bound is broken."""
    report = graph_side(folder, manifest, expected, allow_loss=allow_loss)
    if not report.passed:
        raise ParityError(
            f"the graph of {manifest.base.name} differs from torch: {'; '.join(report.failures)}; "
            f"no bundle was written\n{report.to_text()}"
        )
    verified = replace(manifest, parity=report.to_json())
    verified.save(folder)
    return verified
