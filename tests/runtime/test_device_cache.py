"""The cache for devices. Without a GPU it runs on the device "cpu": the same graph of copies, the
same addresses.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from edgeprefix.export import export_decoder
from edgeprefix.runtime import Engine, Request
from edgeprefix.runtime.contracts.manifest import TOKENIZER_FILE, LayerShape, Manifest
from edgeprefix.runtime.contracts.tokenizer import TextTokenizer
from edgeprefix.runtime.decoding.cache import Cache
from edgeprefix.runtime.decoding.decoder import Decoder
from edgeprefix.runtime.decoding.device_cache import DeviceCache
from edgeprefix.runtime.decoding.quiet_ort import ort
from edgeprefix.runtime.decoding.session import CPU, CUDA, _require_half_on_cuda, open_graph
from edgeprefix.runtime.decoding.strip_copier import Place, StripCopier, identity_graph
from edgeprefix.runtime.errors import ProviderError

SHAPES = [
    LayerShape(kv_heads=heads, head_size=size)
    for heads, size in ((2, 16), (3, 16), (1, 32), (2, 32))
]


def caches(dtype: type = np.float32) -> tuple[Cache, DeviceCache]:
    common = {"batch": 4, "capacity": 12, "dtype": np.dtype(dtype)}
    return Cache(SHAPES, **common), DeviceCache(SHAPES, **common, device="cpu", providers=[CPU])  # type: ignore[arg-type]


def random_layers(length: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    random = np.random.default_rng(seed)
    return [
        (
            random.standard_normal((s.kv_heads, length, s.head_size)),
            random.standard_normal((s.kv_heads, length, s.head_size)),
        )
        for s in SHAPES
    ]


def content(cache: Cache | DeviceCache, slot: int) -> list[np.ndarray]:
    return [np.stack(pair) for pair in cache.unpack(cache.read(slot, 12))]


def test_the_hand_written_graph_is_valid_onnx() -> None:
    model = onnx.load_from_string(identity_graph(300, np.dtype(np.float16)))
    onnx.checker.check_model(model, full_check=True)
    assert len(model.graph.node) == 300


def test_strips_are_copied() -> None:
    source, target = np.arange(40, dtype=np.float32), np.zeros(40, np.float32)
    copier = StripCopier(2, source.dtype, [CPU])
    address = lambda array, index: array.ctypes.data + 4 * index  # noqa: E731
    copier.copy(
        Place("cpu", [address(source, 0), address(source, 20)]),
        Place("cpu", [address(target, 5), address(target, 30)]),
        7,
    )
    expected = np.zeros(40, np.float32)
    expected[5:12], expected[30:37] = source[:7], source[20:27]
    assert np.array_equal(target, expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_every_operation_does_what_the_cache_in_main_memory_does(dtype: type) -> None:
    plain, device = caches(dtype)
    for cache in (plain, device):
        for slot, length in enumerate((5, 12, 1, 7)):
            cache.write(slot, cache.pack(random_layers(length, slot)))
        cache.copy(1, 2, start=3, stop=9)
        cache.gather([1, 3, 0], [0, 1, 3], start=2, stop=11)
        cache.gather([1], [0], start=4, stop=4)
    for slot in range(4):
        for one, other in zip(content(plain, slot), content(device, slot), strict=True):
            assert np.array_equal(one, other)
    assert plain.nbytes == device.nbytes
    assert sum(p.nbytes for p in plain.pack(random_layers(5, 0))) == sum(
        p.nbytes for p in device.pack(random_layers(5, 0))
    )


def test_a_whole_engine_over_a_device_cache(
    llama_bundle: Path, prefix_folder: Path, shared_engine: Engine
) -> None:
    """Everything but the provider is as on a GPU: the cache behind addresses, small arrays bound
    anew for every step.
    """
    manifest = Manifest.load(llama_bundle)
    graph = dataclasses.replace(open_graph(llama_bundle, manifest, threads=1))
    cache = DeviceCache(
        graph.layers,
        batch=4,
        capacity=96,
        dtype=graph.cache_dtype,
        device="cpu",
        providers=graph.providers,
    )
    decoder = Decoder(graph, cache)
    decoder._in_place = False
    tokenizer = TextTokenizer.from_file(llama_bundle / TOKENIZER_FILE, end_ids=manifest.end_ids)
    requests = [
        Request(text, task=name, max_new_tokens=6 + place, ignore_end=True)
        for place, text in enumerate(
            ["The quick brown fox", "Where is it?", "name: Ann | city: Rome | food: pasta"]
        )
        for name in ("news", "mail", None)
    ]
    with Engine(manifest, tokenizer, decoder, chunk_tokens=8) as engine:
        engine.load_prefixes(prefix_folder)
        assert [one.tokens for one in engine.generate_many(requests)] == [
            one.tokens for one in shared_engine.generate_many(requests)
        ]
        beams = engine.generate("The quick", task="poem", beams=3, max_new_tokens=8)
        assert (
            beams.tokens
            == shared_engine.generate("The quick", task="poem", beams=3, max_new_tokens=8).tokens
        )
        compiled = engine.compile("The quick brown fox", name="fox", task="mail")
        expected = shared_engine.compile("The quick brown fox", name="fox", task="mail")
        assert all(
            np.array_equal(one.key, other.key)
            for one, other in zip(compiled.layers, expected.layers, strict=True)
        )


@pytest.mark.skipif(CUDA in ort.get_available_providers(), reason="this onnxruntime has CUDA")
def test_cuda_that_is_not_there(llama_bundle: Path) -> None:
    with pytest.raises(
        ProviderError,
        match="'CUDAExecutionProvider' is not installed; .* pip install onnxruntime-gpu",
    ):
        Engine.load(llama_bundle, providers=[CUDA])


def test_a_cuda_bundle_must_have_an_fp16_cache(llama_bundle: Path) -> None:
    manifest = Manifest.load(llama_bundle)
    with pytest.raises(
        ProviderError,
        match="no attention kernel for a float32 cache; export the bundle with --precision fp16",
    ):
        _require_half_on_cuda(manifest, [(CUDA, {"device_id": 0})])
    _require_half_on_cuda(dataclasses.replace(manifest, cache_dtype="float16"), [CUDA])
    _require_half_on_cuda(manifest, [CPU])


@pytest.mark.skipif(
    "AzureExecutionProvider" not in ort.get_available_providers(),
    reason="another onnxruntime build",
)
def test_any_other_provider_is_passed_through(
    llama_bundle: Path, prefix_folder: Path, shared_engine: Engine
) -> None:
    """It may have a device of its own, so nothing that was bound once is relied upon."""
    request = Request("The quick brown fox", task="news", max_new_tokens=8, ignore_end=True)
    with Engine.load(
        llama_bundle,
        prefixes=prefix_folder,
        providers=[("AzureExecutionProvider", {})],
        max_batch=2,
        max_length=96,
    ) as engine:
        graph: Any = engine._scheduler._decoder.graph  # type: ignore[attr-defined]
        assert (graph.device, graph.keeps_bindings) == ("cpu", False)
        assert (
            engine.generate_many([request] * 3)[2].tokens
            == shared_engine.generate_many([request])[0].tokens
        )


@pytest.mark.gpu
def test_cuda_gives_the_tokens_that_the_cpu_gives(
    llama_base: Path, prefix_folder: Path, tmp_path: Path
) -> None:
    """fp16 on both sides: tasks, chunks, samples, beams and scores, all of which move parts of the
    cache.
    """
    export_decoder(llama_base, tmp_path / "fp16", precision="fp16", verify=False)
    settings: dict[str, Any] = {
        "prefixes": prefix_folder,
        "max_batch": 4,
        "max_length": 96,
        "chunk_tokens": 8,
    }
    requests = [
        Request("The quick brown fox", task=name, max_new_tokens=8, ignore_end=True, **extra)
        for name in ("news", "mail", None)
        for extra in ({}, {"beams": 3}, {"n": 2, "temperature": 1.0, "seed": 1})  # type: ignore[attr-defined]
    ]
    results = []
    for providers in ([CUDA], [CPU]):
        with Engine.load(tmp_path / "fp16", providers=providers, **settings) as engine:
            assert isinstance(engine._store._cache, DeviceCache) == (providers == [CUDA])
            tokens = [one.tokens for one in engine.generate_many(requests)]
            results.append((tokens, list(engine.score("x", ["yes", "no"], task="poem"))))
    assert results[0][0] == results[1][0]
    np.testing.assert_allclose(results[0][1], results[1][1], atol=0.05)
