"""An int8 cache: keys and values in a quarter of the memory, prefixes rounded when they are
loaded.
"""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
from graphs import MakeBundle, graph_of
from typer.testing import CliRunner
from zoo import tiny_model

from edgeprefix.base import Base
from edgeprefix.export import export_decoder, export_prefix, verify
from edgeprefix.export.bundle import build_graph, write_bundle
from edgeprefix.export.calibration import Calibration, measure_scales
from edgeprefix.export.cli.app import export_app
from edgeprefix.export.reference import Reference, some_tokens
from edgeprefix.runtime import Engine, Prefix
from edgeprefix.runtime.contracts.cache_scales import (
    LayerScales,
    cut_share,
    load_scales,
    require_fit,
)
from edgeprefix.runtime.contracts.identity import BaseIdentity
from edgeprefix.runtime.contracts.manifest import LayerShape, Manifest
from edgeprefix.runtime.contracts.prefix_file import PrefixLayer
from edgeprefix.runtime.decoding.opening import CacheSize, open_decoder
from edgeprefix.runtime.decoding.quiet_ort import ort
from edgeprefix.runtime.errors import (
    BaseMismatchError,
    BundleError,
    CapacityError,
    ExportError,
    ProviderError,
)

LAYERS = [LayerShape(kv_heads=2, head_size=16)] * 2  # of the tiny Llama


@pytest.mark.parametrize("kind", ["fp32+int8", "int4+int8"])
def test_it_stays_within_its_bounds(kind: str, llama: Base, llama_bundle: MakeBundle) -> None:
    report = verify(llama_bundle(kind), llama)
    assert report.passed, report.to_text()
    assert report.to_json()["cache"] == "int8"
    assert "int8 cache: equal to torch" in report.to_text()


@pytest.mark.slow
@pytest.mark.parametrize("model_type", ["mistral", "gemma2", "gpt_oss", "gpt2", "gemma4_text"])
def test_windows_caps_sinks_and_shared_layers(model_type: str, tmp_path: Path) -> None:
    identity = BaseIdentity(
        name=model_type, weights_sha256="0", config_sha256="0", tokenizer_sha256="0"
    )
    base = Base(folder=tmp_path, identity=identity, model=tiny_model(model_type), tokenizer=None)
    layers, graph = build_graph(base)
    write_bundle(base, layers, graph, tmp_path, precision="fp32", scales=measure_scales(base))
    report = verify(tmp_path, base)
    # 0.19 in Gemma 4, which has ten times the others' rounding in fp32, too
    assert report.noise < 0.25, report.to_text()


def test_what_the_bundle_says_of_it(llama_bundle: MakeBundle) -> None:
    bundle = llama_bundle("fp32+int8")
    manifest = Manifest.load(bundle)
    assert manifest.cache_dtype == "int8"
    assert "cache.safetensors" in manifest.files
    scales = load_scales(bundle, manifest.layers)
    assert [array.shape for array in scales[0]] == [(2, 1, 16), (2, 1, 16)]
    assert min(float(array.min()) for layer in scales for array in layer) > 0
    assert "past_key_values.0.key.scale" in graph_of(bundle).initializers


def test_the_engine_runs_on_a_quarter_of_the_memory(
    llama_bundle: MakeBundle, tmp_path: Path
) -> None:
    """And says of a text behind a compiled one what the engine with an fp32 cache says."""
    labels = [" jumps over", " sleeps", " is in Rome"]
    with (
        Engine.load(llama_bundle("fp32"), max_batch=2, max_length=64) as plain,
        Engine.load(llama_bundle("fp32+int8"), max_batch=2, max_length=64) as small,
    ):
        assert small.cache_bytes * 4 == plain.cache_bytes
        scores = []
        for engine in (plain, small):
            compiled = engine.compile("The quick brown fox", name="fox")
            compiled.save(tmp_path / "fox.safetensors")
            engine.load_prefix(tmp_path / "fox.safetensors")
            scores.append(np.array(engine.score("It", labels, task="fox").values))
        bare = np.array(plain.score("It", labels).values)
    assert np.abs(scores[1] - scores[0]).max() < 0.2 * np.abs(bare - scores[0]).max()


def test_compiled_numbers_come_back_as_the_same_steps(llama_bundle: MakeBundle) -> None:
    bundle = llama_bundle("fp32+int8")
    with Engine.load(bundle, max_batch=1, max_length=64) as engine:
        compiled = engine.compile("The quick brown fox", name="fox")
    cache = open_decoder(bundle, Manifest.load(bundle), CacheSize(rows=1, capacity=8)).cache
    for kept, layer in zip(cache.unpack(cache.pack(compiled.layers)), compiled.layers, strict=True):
        np.testing.assert_array_equal(kept, np.stack(layer))


@pytest.fixture(scope="module")
def trained(llama: Base) -> Prefix:
    """Reaches as far as trained prefixes do: up to nine times the text's own numbers."""
    states = Reference(llama).random_states(some_tokens(llama, 64), 12, seed=5, stretch=9.3)
    layers = tuple(PrefixLayer(*pair) for pair in states)
    return Prefix(name="far", base=llama.identity, layers=layers)


def test_a_prefix_that_would_be_cut_is_refused(
    llama: Base, llama_bundle: MakeBundle, trained: Prefix, tmp_path: Path
) -> None:
    """Where it is loaded, exported for the bundle, and verified with it."""
    bundle, file = llama_bundle("fp32+int8"), tmp_path / "far.safetensors"
    trained.save(file)
    message = r"far.* does not fit .* int8 cache: [2-9]\d\.\d% .*at most 1%.*--calibrate PREFIX"
    with Engine.load(bundle, max_batch=1, max_length=64) as engine:
        with pytest.raises(CapacityError, match=message):
            engine.load_prefix(file)
        assert engine.tasks() == []
    with pytest.raises(CapacityError, match=message):
        export_prefix(file, tmp_path / "out.safetensors", bundle=bundle)
    assert not (tmp_path / "out.safetensors").exists()
    export_prefix(file, tmp_path / "out.safetensors", bundle=llama_bundle("fp32"))
    report = verify(bundle, llama, prefix=trained)
    assert report.cut == pytest.approx(cut_share(trained.layers, load_scales(bundle, LAYERS)))
    assert any("are cut off, at most 1% may" in failure for failure in report.failures)


def test_how_many_numbers_may_be_cut() -> None:
    """A number that rounds to the last step (127, or -128) is not cut; one in a hundred may be, of
    any layer's keys or values.
    """
    scales = [LayerScales(*np.full((2, 1, 1, 10), 0.5, np.float32))] * 2
    inside = np.full((1, 20, 10), 127.49 * 0.5, np.float32)
    assert cut_share([(inside, -inside - 0.5)] * 2, scales) == 0.0
    some = inside.copy()
    some.flat[:2] = 128.51 * 0.5
    require_fit([(inside, inside), (inside, -some)], scales, where="x")
    some.flat[2] = np.inf
    with pytest.raises(CapacityError, match=r"prefix x does not fit .*: 1\.5% of a layer's"):
        require_fit([(inside, inside), (inside, some)], scales, where="x")
    some.flat[:3] = np.nan
    with pytest.raises(CapacityError, match="does not fit"):
        require_fit([(some, inside), (inside, inside)], scales, where="x")


def test_a_bundle_calibrated_on_a_prefix_takes_it(
    llama: Base, trained: Prefix, tmp_path: Path
) -> None:
    """And nothing of it is cut, while text is hardly coarser."""
    (tmp_path / "tasks").mkdir()
    trained.save(tmp_path / "tasks" / "far.safetensors")
    (tmp_path / "tasks" / "._far.safetensors").write_bytes(b"of a Mac")
    bundle = tmp_path / "bundle"
    manifest = export_decoder(llama.folder, bundle, cache="int8", calibrate=[tmp_path / "tasks"])
    assert "task far" in [case["name"] for case in manifest.parity["cases"]]
    assert manifest.parity["exact"]["relative"] < 1e-5
    assert cut_share(trained.layers, load_scales(bundle, manifest.layers)) == 0.0
    with Engine.load(bundle, max_batch=1, max_length=64) as engine:
        engine.load_prefix(tmp_path / "tasks" / "far.safetensors")
    report = verify(bundle, llama, prefix=trained)
    assert report.passed, report.to_text()
    assert report.cut == 0.0


def test_rows_widen_the_scales(llama: Base, tmp_path: Path) -> None:
    """What a row's text reaches is held, with the margin that text has."""
    (tmp_path / "rows.jsonl").write_text('{"input": "qqq zzz 999", "target": "~~~ 漢字"}\n')
    calibration = Calibration.read([tmp_path / "rows.jsonl"])
    assert calibration.texts == ("qqq zzz 999\n~~~ 漢字",)
    plain, wide = measure_scales(llama), measure_scales(llama, calibration)
    assert llama.tokenizer is not None
    ids = np.array(llama.tokenizer.encode(calibration.texts[0]).ids)
    for before, after, states in zip(plain, wide, Reference(llama).own_states(ids), strict=True):
        for old, new, array in zip(before, after, states, strict=True):
            reach = 1.25 * np.abs(array).max(axis=1, keepdims=True) / 127
            np.testing.assert_allclose(new, np.maximum(old, reach), rtol=1e-4)
    assert any((after.key > before.key).any() for before, after in zip(plain, wide, strict=True))


def test_what_cannot_be_calibrated_on(llama: Base, trained: Prefix, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="calibrate is for an int8 cache"):
        export_decoder(llama.folder, tmp_path / "bundle", calibrate=[tmp_path / "x.safetensors"])
    with pytest.raises(ExportError, match="holds no prefix file"):
        export_decoder(llama.folder, tmp_path / "bundle", cache="int8", calibrate=[tmp_path])
    other = dataclasses.replace(llama.identity, name="other", weights_sha256="0" * 64)
    foreign = dataclasses.replace(trained, base=other)
    with pytest.raises(BaseMismatchError, match="'far' belongs to base other"):
        measure_scales(llama, Calibration(prefixes=(foreign,)))
    asked = CliRunner().invoke(
        export_app, ["decoder", str(llama.folder), "--out", "b", "--calibrate", "rows.jsonl"]
    )
    assert asked.exit_code == 2
    assert "is for an int8 cache" in asked.output


def test_where_it_cannot_run(
    llama_bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bundle = shutil.copytree(llama_bundle("fp32+int8"), tmp_path / "bundle")
    with pytest.raises(ProviderError, match="an int8 cache, which runs on the CPU"):
        Engine.load(bundle, providers=["CUDAExecutionProvider"])
    monkeypatch.setattr(ort, "__version__", "1.26.0")
    with pytest.raises(
        ProviderError, match=r"onnxruntime 1\.26\.0 cannot read; install onnxruntime 1\.27"
    ):
        Engine.load(bundle)
    monkeypatch.undo()
    (bundle / "cache.safetensors").write_bytes(b"")
    with pytest.raises(BundleError, match=r"cache\.safetensors"):
        Engine.load(bundle)


def test_it_is_for_the_cpu_only(llama_base: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ExportError, match="cache 'int8' with precision fp16 is unknown; leave it out"
    ):
        export_decoder(llama_base, tmp_path / "bundle", precision="fp16", cache="int8")
