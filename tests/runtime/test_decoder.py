"""The lowest layer against torch: prefix, chunks, rows of different lengths, slots copied and
moved.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from bundles import make_prefix, torch_logits, torch_model

from edgeprefix.runtime import Prefix
from edgeprefix.runtime.contracts.manifest import LayerShape, Manifest
from edgeprefix.runtime.decoding.cache import Cache, Slots
from edgeprefix.runtime.decoding.decoder import Decoder
from edgeprefix.runtime.decoding.session import open_graph
from edgeprefix.runtime.errors import BundleError, CapacityError, EdgePrefixError, ProviderError

TOLERANCE = 2e-5  # fp32 rounding over two layers; the logits are of order 1


@pytest.fixture
def decoder(bundle: Path) -> Decoder:
    graph = open_graph(bundle, Manifest.load(bundle), threads=1)
    return Decoder(graph, Cache(graph.layers, batch=3, capacity=64, dtype=graph.cache_dtype))


def fill(decoder: Decoder, slot: int, prefix: Prefix) -> int:
    decoder.cache.write(slot, decoder.cache.pack(prefix.layers))
    return prefix.length


def test_rows_with_their_own_prefix_and_length_equal_torch(
    bundle: Path, base: Path, decoder: Decoder
) -> None:
    model, manifest, random = torch_model(base), Manifest.load(bundle), np.random.default_rng(0)
    prefixes = [
        make_prefix(manifest, "a", 5),
        make_prefix(manifest, "b", 2),
        make_prefix(manifest, "c", 9),
    ]
    texts = [random.integers(2, 300, length) for length in (7, 12, 3)]
    for slot, (prefix, text) in enumerate(zip(prefixes, texts, strict=True)):
        start = fill(decoder, slot, prefix)
        logits = decoder.feed(slot, text, start=start)
        np.testing.assert_allclose(logits, torch_logits(model, prefix, text), atol=TOLERANCE)
    for step in range(3):  # the slots' lengths differ, and only the first two go on at first
        rows = 2 if step == 0 else 3
        added = random.integers(2, 300, rows)
        texts = [
            np.append(text, added[slot]) if slot < rows else text for slot, text in enumerate(texts)
        ]
        lengths = [prefix.length + len(text) for prefix, text in zip(prefixes, texts, strict=True)]
        logits = decoder.step(added.tolist(), lengths[:rows])
        for slot in range(rows):
            expected = torch_logits(model, prefixes[slot], texts[slot])[-1]
            np.testing.assert_allclose(logits[slot], expected, atol=TOLERANCE)


def test_chunks_and_wanted_rows(decoder: Decoder) -> None:
    text = np.arange(20, 50)
    whole = decoder.feed(0, text, start=0)
    first = decoder.feed(1, text[:11], start=0, wanted=[])
    rest = decoder.feed(1, text[11:], start=11, wanted=[2, 18])
    assert first.shape == (0, whole.shape[1])
    np.testing.assert_allclose(rest, whole[[13, 29]], atol=TOLERANCE)


@pytest.mark.parametrize("name", ["llama_bundle", "gpt2_bundle", "int4_bundle"])
def test_other_rows_content_changes_no_bit(name: str, request: pytest.FixtureRequest) -> None:
    """Rounding may depend on how many rows there are, never on what is in them."""
    folder = request.getfixturevalue(name)
    graph = open_graph(folder, Manifest.load(folder), threads=1)
    decoder = Decoder(graph, Cache(graph.layers, batch=3, capacity=64, dtype=graph.cache_dtype))
    text = np.arange(20, 45)
    seen = []
    for seed in range(4):
        random = np.random.default_rng(seed)
        decoder.feed(1, text, start=0)
        for slot in (0, 2):
            decoder.feed(slot, random.integers(2, 300, 40), start=0)
        tokens = random.integers(2, 300, 3)
        tokens[1] = 7
        seen.append(
            decoder.step(tokens.tolist(), [random.integers(2, 42), 26, random.integers(2, 42)])[
                1
            ].copy()
        )
    assert all(np.array_equal(seen[0], other) for other in seen)


def test_steady_rows_do_not_depend_on_how_many_others_there_are(int4_bundle: Path) -> None:
    """In int4 the kernels round one row otherwise than several; a steady decoder never gives them
    an odd one.
    """
    graph, random = (
        open_graph(int4_bundle, Manifest.load(int4_bundle), threads=1),
        np.random.default_rng(0),
    )
    decoder = Decoder(
        graph, Cache(graph.layers, batch=6, capacity=65, dtype=graph.cache_dtype), steady=True
    )
    assert (decoder.slots, decoder.capacity) == (5, 64)
    for _ in range(20):
        texts = [random.integers(2, 300, 30) for _ in range(5)]
        tokens = random.integers(2, 300, 5).tolist()
        for slot, text in enumerate(texts):
            decoder.feed(slot, text, start=0, wanted=[])
        whole = decoder.step(tokens, [31] * 5).copy()
        for rows in range(1, 5):
            assert np.array_equal(decoder.step(tokens[:rows], [31] * rows), whole[:rows])


def test_a_copied_slot_goes_on_like_the_original(decoder: Decoder) -> None:
    text = np.arange(20, 50)
    decoder.feed(0, text, start=0)
    decoder.feed(1, text[::-1], start=0)
    decoder.cache.copy(0, 2, start=0, stop=30)
    logits = decoder.step([7, 7, 7], [31, 31, 31]).copy()
    assert np.array_equal(logits[0], logits[2])
    assert not np.allclose(logits[0], logits[1])


def test_gather_reads_all_before_it_writes(decoder: Decoder) -> None:
    for slot in range(3):
        decoder.feed(slot, np.arange(20 + slot, 50), start=0)
    before = [decoder.cache.read(slot, 25) for slot in range(3)]
    decoder.cache.gather([1, 2, 0], [0, 1, 2], start=0, stop=25)
    for target, source in enumerate([1, 2, 0]):
        for now, was in zip(decoder.cache.read(target, 25), before[source], strict=True):
            assert np.array_equal(now, was)


def test_pack_and_unpack_layers_of_different_shapes() -> None:
    layers = [
        LayerShape(kv_heads=heads, head_size=size) for heads, size in ((2, 4), (1, 8), (2, 4))
    ]
    cache = Cache(layers, batch=2, capacity=6, dtype=np.dtype(np.float32))
    random = np.random.default_rng(0)
    pairs = [
        tuple(random.random((layer.kv_heads, 3, layer.head_size), np.float32) for _ in range(2))
        for layer in layers
    ]
    packed = cache.pack(pairs)  # type: ignore[arg-type]
    cache.write(1, packed)
    for index, (view, pair) in enumerate(
        zip(cache.views(Slots(1, 2)), cache.unpack(cache.read(1, 3)), strict=True)
    ):
        assert np.array_equal(pair[0], pairs[index][0])
        assert np.array_equal(view.value[0, :, :3], pairs[index][1])
    assert cache.nbytes == sum(
        view.key.nbytes + view.value.nbytes for view in cache.views(Slots(0, 2))
    )


def test_a_cache_that_does_not_fit_is_refused_with_numbers() -> None:
    layers = [LayerShape(kv_heads=8, head_size=128)] * 32
    with pytest.raises(
        CapacityError,
        match=r"4096 rows x 131072 positions needs \d+ MiB, \d+ MiB are free; lower max_batch",
    ):
        Cache(layers, batch=4096, capacity=131072, dtype=np.dtype(np.float32))


def test_a_graph_that_fails_says_so_and_goes_on(decoder: Decoder) -> None:
    with pytest.raises(EdgePrefixError, match=r"the graph failed in a step: .* out of"):
        decoder.feed(0, np.asarray([10**6]), start=0)
    assert np.isfinite(decoder.feed(0, np.asarray([10]), start=0)).all()


def test_unknown_provider(bundle: Path) -> None:
    with pytest.raises(
        ProviderError,
        match="'NoSuchProvider' is not installed; this onnxruntime has .*CPUExecutionProvider",
    ):
        open_graph(bundle, Manifest.load(bundle), providers=["NoSuchProvider"])


def test_a_missing_kernel_is_told_by_its_type_not_by_words(bundle: Path, tmp_path: Path) -> None:
    """A damaged file in a folder of that name lacks no kernel; bf16 has none on the CPU."""
    manifest, folder = Manifest.load(bundle), tmp_path / "kernel"
    folder.mkdir()
    (folder / "decoder.onnx").write_bytes(b"no graph")
    with pytest.raises(BundleError, match="cannot be opened"):
        open_graph(folder, manifest)
    ends = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.BFLOAT16, [2]) for name in "xy"
    ]
    node = onnx.helper.make_node("Abs", ["x"], ["y"])
    graph = onnx.helper.make_graph([node], "no kernel", ends[:1], ends[1:])
    opset = onnx.helper.make_opsetid("", 21)
    model = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=10)
    onnx.save(model, folder / "decoder.onnx")
    with pytest.raises(ProviderError, match="lacks a kernel that the graph needs"):
        open_graph(folder, manifest)


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege on Windows")
def test_a_bundle_of_links(llama_bundle: Path, tmp_path: Path) -> None:
    """A hub's cache links graph and weights to files of one folder, which opens. Weights alone that
    lie elsewhere are refused by ONNX Runtime, and the message says so: nothing is damaged.
    """
    manifest, blobs, bundle = Manifest.load(llama_bundle), tmp_path / "blobs", tmp_path / "snapshot"
    blobs.mkdir()
    bundle.mkdir()
    for name in ("decoder.onnx", "decoder.onnx.data"):
        shutil.copy(llama_bundle / name, blobs / f"blob-{len(name)}")
        (bundle / name).symlink_to(Path("../blobs") / f"blob-{len(name)}")
    open_graph(bundle, manifest)
    (bundle / "decoder.onnx").unlink()
    shutil.copy(llama_bundle / "decoder.onnx", bundle)
    with pytest.raises(BundleError, match="weights behind a link .* put the file itself") as found:
        open_graph(bundle, manifest)
    assert "again" not in str(found.value)


def test_graph_that_is_missing_damaged_or_another(
    llama_bundle: Path, gpt2_bundle: Path, tmp_path: Path
) -> None:
    manifest = Manifest.load(llama_bundle)
    with pytest.raises(BundleError, match=r"decoder\.onnx is missing"):
        open_graph(tmp_path, manifest)
    (tmp_path / "decoder.onnx").write_bytes(b"no graph")
    with pytest.raises(BundleError, match="cannot be opened"):
        open_graph(tmp_path, manifest)
    with pytest.raises(
        BundleError, match=r"cache of 4 heads, size 16, float32; the manifest says 2, 16"
    ):
        open_graph(gpt2_bundle, manifest)
