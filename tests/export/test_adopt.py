"""Graphs of other exporters: adopted, and run by the engine with the same prefix files as
edgeprefix's own.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from graphs import MakeBundle
from masked_graph import to_masked_graph
from onnx import TensorProto, helper, numpy_helper
from past_graph import export_past_graph
from typer.testing import CliRunner

from edgeprefix.base import Base
from edgeprefix.export.adopt import adopt
from edgeprefix.export.cli.app import export_app
from edgeprefix.runtime import Engine, Prefix, Request
from edgeprefix.runtime.contracts.manifest import Manifest
from edgeprefix.runtime.contracts.past_graph import BRANCH, GROWN, IN_PLACE, KEPT_LOGITS
from edgeprefix.runtime.contracts.prefix_file import PrefixLayer
from edgeprefix.runtime.decoding.opening import CacheSize, open_decoder
from edgeprefix.runtime.decoding.quiet_ort import ort
from edgeprefix.runtime.errors import CheckpointError, ExportError, OutputError, ParityError

PROMPTS = [
    "Where is the café?",
    "My account, please. I cannot log in and the parcel never came, what now?",
    "a",
    "fox",
]


def optimum_folder(base: Base, folder: Path, *, positions: bool = True) -> Path:
    """The layout that Optimum writes: model.onnx with config.json beside it."""
    folder.mkdir(parents=True)
    export_past_graph(base.model, folder / "model.onnx", positions=positions)
    shutil.copy(base.folder / "config.json", folder)
    return folder


@pytest.fixture(scope="session")
def past_llama(llama: Base, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return optimum_folder(llama, tmp_path_factory.mktemp("optimum") / "llama")


@pytest.fixture(scope="session")
def own(llama_bundle: MakeBundle) -> Path:
    return llama_bundle("fp32")


@pytest.fixture(scope="session")
def adopted(
    llama: Base, past_llama: Path, own: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """Bundles of the tiny Llama by kind: "positions", "counting" (no position ids) or "in
    place".
    """
    folder, made = tmp_path_factory.mktemp("adopted"), {}

    def make(kind: str) -> Path:
        if kind not in made:
            made[kind] = folder / kind
            adopt(_source(kind), made[kind], base=llama.folder)
        return made[kind]

    def _source(kind: str) -> Path:
        if kind == "positions":
            return past_llama
        if kind == "counting":
            return optimum_folder(llama, folder / "onnx-counting", positions=False)
        return to_masked_graph(own, folder / "onnx-in-place")

    return make


@pytest.fixture(scope="session")
def prefixes(own: Path) -> list[Prefix]:
    """Two random prefixes of the tiny Llama, of different lengths."""
    manifest, random = Manifest.load(own), np.random.default_rng(0)
    return [
        Prefix(
            name=name,
            base=manifest.base,
            layers=tuple(
                PrefixLayer(
                    *random.standard_normal((2, layer.kv_heads, length, layer.head_size)).astype(
                        np.float32
                    )
                )
                for layer in manifest.layers
            ),
        )
        for name, length in (("news", 5), ("mail", 11))
    ]


def engine_of(bundle: Path, prefixes: list[Prefix], **options: int | bool) -> Engine:
    engine = Engine.load(bundle, max_batch=4, max_length=128, threads=1, **options)
    for prefix in prefixes:
        engine.load_prefix(prefix)
    return engine


def texts(engine: Engine, **settings: int) -> list[list[int]]:
    """Tokens of a mixed batch: prompts of different lengths, with and without prefixes."""
    tasks = ["news", None, "mail", "news"]
    requests = [
        Request(text, task=task, max_new_tokens=12, **settings)
        for text, task in zip(PROMPTS, tasks, strict=True)
    ]
    return [list(completion.tokens) for completion in engine.generate_many(requests)]


KINDS = {"positions": (GROWN, True), "counting": (GROWN, False), "in place": (IN_PLACE, True)}


@pytest.mark.parametrize("kind", KINDS)
def test_engine_gives_the_same_tokens_as_with_its_own_graph(
    kind: str, adopted: Callable[[str], Path], own: Path, prefixes: list[Prefix]
) -> None:
    bundle = adopted(kind)
    manifest = Manifest.load(bundle)
    assert manifest.graph is not None
    assert (manifest.graph.cache, manifest.graph.mixed) == KINDS[kind]
    assert manifest.graph.many
    assert manifest.parity["passed"]
    assert [case["name"] for case in manifest.parity["cases"]] == [
        "prefill",
        "chunks",
        "decode",
        "prefix",
        "rows",
        "long",
    ]
    with engine_of(own, prefixes) as ours, engine_of(bundle, prefixes) as theirs:
        wanted = texts(ours)
        assert texts(theirs) == wanted
        assert texts(theirs, beams=2) == texts(ours, beams=2)
        scores = [
            engine.score("Which?", ["yes", "no", "not at all"], task="mail")
            for engine in (ours, theirs)
        ]
        np.testing.assert_allclose(scores[1].values, scores[0].values, atol=1e-4)
        compiled = [
            engine.compile("It is near the river.", name="system", task="news")
            for engine in (ours, theirs)
        ]
        for got, expected in zip(compiled[1].layers, compiled[0].layers, strict=True):
            np.testing.assert_allclose(got.key, expected.key, atol=1e-4)
            np.testing.assert_allclose(got.value, expected.value, atol=1e-4)
    with (
        engine_of(bundle, prefixes, chunk_tokens=5) as chunked,
        engine_of(bundle, prefixes, steady=True) as steady,
    ):
        assert texts(chunked) == wanted
        assert texts(steady) == wanted


def test_gpt2_with_learned_positions(gpt2_base: Path, tmp_path: Path) -> None:
    from edgeprefix.base import load_base

    base = load_base(gpt2_base)
    manifest = adopt(optimum_folder(base, tmp_path / "onnx"), tmp_path / "bundle", base=gpt2_base)
    assert manifest.graph is not None
    assert manifest.graph.mixed
    assert manifest.parity["max_abs"] < 1e-4


def test_transformers_js_layout(llama_base: Path, past_llama: Path, tmp_path: Path) -> None:
    """Graphs of several precisions in the subfolder onnx, config.json above it."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    folder = tmp_path / "repository"
    (folder / "onnx").mkdir(parents=True)
    shutil.copy(past_llama / "config.json", folder)
    shutil.copy(past_llama / "model.onnx", folder / "onnx" / "model.onnx")
    plain = adopt(folder, tmp_path / "plain", base=llama_base, link=True)
    assert plain.graph is not None
    assert plain.graph.exporter == "transformers.js"
    assert (tmp_path / "plain" / "decoder.onnx").stat().st_ino == (
        folder / "onnx" / "model.onnx"
    ).stat().st_ino

    small = folder / "onnx" / "model_quantized.onnx"
    options = ort.SessionOptions()
    # Transposed weights become constants
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(tmp_path / "folded.onnx")
    ort.InferenceSession(
        str(folder / "onnx" / "model.onnx"), options, providers=["CPUExecutionProvider"]
    )
    quantize_dynamic(
        tmp_path / "folded.onnx",
        small,
        weight_type=QuantType.QInt8,
        op_types_to_quantize=["MatMul"],
    )
    assert (
        adopt(folder, tmp_path / "int8", base=llama_base, file="model_quantized.onnx").precision
        == "int8"
    )
    (folder / "onnx" / "model.onnx").rename(folder / "onnx" / "model_q4.onnx")
    with pytest.raises(
        CheckpointError, match=r"model_q4\.onnx, onnx/model_quantized\.onnx; choose one with --file"
    ):
        adopt(folder, tmp_path / "x", base=llama_base)
    with pytest.raises(CheckpointError, match=r"has no model_fp16\.onnx; it has onnx/model_q4"):
        adopt(folder, tmp_path / "x", base=llama_base, file="model_fp16.onnx")


def test_links_of_a_hub_cache_are_followed(
    llama_base: Path, past_llama: Path, tmp_path: Path
) -> None:
    """A snapshot's files are relative links to blobs: a hard link to such a link dangles."""
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "main"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for name in ("model.onnx", "config.json"):
        shutil.copy(past_llama / name, blobs / f"blob-of-{name[:5]}")
        (snapshot / name).symlink_to(Path("../../blobs") / f"blob-of-{name[:5]}")
    bundle = tmp_path / "elsewhere" / "bundle"
    adopt(snapshot, bundle, base=llama_base, link=True).check_files(bundle, hashes=True)
    graph = bundle / "decoder.onnx"
    assert not graph.is_symlink()
    assert graph.samefile(blobs / "blob-of-model")


def test_merged_graph_and_pruned_logits(llama_base: Path, past_llama: Path, tmp_path: Path) -> None:
    """`use_cache_branch` must be true exactly when there is a past, and only the logits that are
    kept come out.
    """
    model = onnx.load(str(past_llama / "model.onnx"))
    graph = model.graph
    for node in graph.node:
        node.output[:] = ["all_logits" if name == "logits" else name for name in node.output]
    graph.input.append(helper.make_tensor_value_info(BRANCH, TensorProto.BOOL, [1]))
    graph.input.append(helper.make_tensor_value_info(KEPT_LOGITS, TensorProto.INT64, []))
    for name, value in {"m_one": [1], "m_two": [2], "m_zero": [0], "m_end": [2**62]}.items():
        graph.initializer.append(numpy_helper.from_array(np.array(value, np.int64), name))
    for name, number in {"m_fine": 0.0, "m_wrong": np.nan}.items():
        graph.initializer.append(numpy_helper.from_array(np.array(number, np.float32), name))
    graph.node.extend(
        [
            helper.make_node("Shape", ["past_key_values.0.key"], ["m_shape"]),
            helper.make_node("Gather", ["m_shape", "m_two"], ["m_length"]),
            helper.make_node("Greater", ["m_length", "m_zero"], ["m_past"]),
            helper.make_node("Equal", ["m_past", BRANCH], ["m_right"]),
            helper.make_node("Where", ["m_right", "m_fine", "m_wrong"], ["m_penalty"]),
            helper.make_node("Add", ["all_logits", "m_penalty"], ["m_logits"]),
            helper.make_node("Neg", [KEPT_LOGITS], ["m_from"]),
            helper.make_node("Reshape", ["m_from", "m_one"], ["m_start"]),
            helper.make_node("Slice", ["m_logits", "m_start", "m_end", "m_one"], ["logits"]),
        ]
    )
    (tmp_path / "onnx").mkdir()
    onnx.save(model, str(tmp_path / "onnx" / "decoder_model_merged.onnx"))
    manifest = adopt(tmp_path / "onnx", tmp_path / "bundle", base=llama_base)
    assert manifest.graph is not None
    assert {BRANCH, KEPT_LOGITS} <= set(manifest.graph.inputs)

    decoder = open_decoder(tmp_path / "bundle", manifest, CacheSize(rows=2, capacity=32))
    tokens = np.arange(5, 12)
    everything = decoder.feed(0, tokens, start=0).copy()
    for wanted in ([6], [2, 5], [5, 2], []):
        np.testing.assert_array_equal(
            decoder.feed(1, tokens, start=0, wanted=wanted), everything[wanted]
        )
    one_by_one = dataclasses.replace(
        manifest, graph=dataclasses.replace(manifest.graph, many=False)
    )
    careful = open_decoder(tmp_path / "bundle", one_by_one, CacheSize(rows=1, capacity=32))
    careful.feed(0, tokens[:3], start=0, wanted=[])
    np.testing.assert_allclose(
        careful.feed(0, tokens[3:], start=3, wanted=[3, 0]), everything[[6, 3]], atol=1e-5
    )


def test_a_graph_of_other_weights_is_refused(
    past_llama: Path, llama_base: Path, tmp_path: Path
) -> None:
    model = onnx.load(str(past_llama / "model.onnx"))
    matrix = next(tensor for tensor in model.graph.initializer if len(tensor.dims) == 2)
    matrix.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(matrix) * 1.5, matrix.name))
    (tmp_path / "onnx").mkdir()
    onnx.save(model, str(tmp_path / "onnx" / "model.onnx"))
    with pytest.raises(ParityError, match="differs from torch"):
        adopt(tmp_path / "onnx", tmp_path / "bundle", base=llama_base)
    assert not (tmp_path / "bundle").exists()


def test_another_base_is_refused(past_llama: Path, gpt2_base: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="is an export of a llama, the base .* is a gpt2"):
        adopt(past_llama, tmp_path / "bundle", base=gpt2_base)
    with pytest.raises(CheckpointError, match="no such folder"):
        adopt(tmp_path / "nowhere", tmp_path / "bundle", base=gpt2_base)
    with pytest.raises(CheckpointError, match="holds no .onnx file"):
        adopt(gpt2_base, tmp_path / "bundle", base=gpt2_base)


def test_command(past_llama: Path, llama_base: Path, tmp_path: Path) -> None:
    arguments = [
        "adopt",
        str(past_llama),
        "--base",
        str(llama_base),
        "--out",
        str(tmp_path / "bundle"),
    ]
    result = CliRunner().invoke(export_app, arguments)
    assert result.exit_code == 0, result.output
    assert "llama, 2 layers, fp32" in result.output
    assert "grown cache, rows of any lengths together" in result.output
    assert isinstance(CliRunner().invoke(export_app, arguments).exception, OutputError)
    asked = CliRunner().invoke(
        export_app, ["decoder", str(llama_base), "--out", "b", "--backend", "optimum", "--smoke"]
    )
    assert asked.exit_code == 2
