"""The handed-over cache against the plainest one: every row's keys and values kept as a list."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgeprefix.runtime.contracts.manifest import LayerShape
from edgeprefix.runtime.contracts.past_graph import PastGraph
from edgeprefix.runtime.decoding.past_memory import GrownCache, MaskedCache
from edgeprefix.runtime.decoding.quiet_ort import ort

LAYERS = [
    LayerShape(kv_heads=2, head_size=4),
    LayerShape(kv_heads=1, head_size=8),
    LayerShape(kv_heads=2, head_size=4),
]
SLOTS, CAPACITY = 3, 24


class Growing:
    """A graph that only grows its cache: present = past and `new`."""

    def __init__(self, cache: GrownCache, folder: Path) -> None:
        self.cache = cache
        names = [f"{layer}.{kind}" for layer in range(len(LAYERS)) for kind in ("key", "value")]

        def values(prefix: str) -> list[onnx.ValueInfoProto]:
            return [
                helper.make_tensor_value_info(
                    f"{prefix}.{name}", TensorProto.FLOAT, ["B", "H", None, "D"]
                )
                for name in names
            ]

        nodes = [
            helper.make_node(
                "Concat", [f"past_key_values.{name}", f"new.{name}"], [f"present.{name}"], axis=2
            )
            for name in names
        ]
        graph = helper.make_graph(
            nodes, "grow", values("past_key_values") + values("new"), values("present")
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.save(model, str(folder / "grow.onnx"))
        self.session = ort.InferenceSession(
            str(folder / "grow.onnx"), providers=["CPUExecutionProvider"]
        )

    def run(self, slots: list[int], starts: list[int], new: list[np.ndarray]) -> np.ndarray:
        """`new` is [B, H, S, D] for each key and value; gives the mask."""
        binding = self.session.io_binding()
        mask = self.cache.hand(binding, slots, starts, new[0].shape[2])
        for index, array in enumerate(new):
            binding.bind_cpu_input(f"new.{index // 2}.{('key', 'value')[index % 2]}", array)
        self.session.run_with_iobinding(binding)
        self.cache.take(slots, starts, new[0].shape[2])
        return mask


def states(random: np.random.Generator, length: int) -> list[tuple[np.ndarray, np.ndarray]]:
    shapes = [(layer.kv_heads, length, layer.head_size) for layer in LAYERS]
    return [tuple(random.standard_normal((2, *shape)).astype(np.float32)) for shape in shapes]


def test_slots_hold_what_the_graph_gave_whatever_happens_between(tmp_path: Path) -> None:
    """Random prompts, steps, prefixes, moves and rewinds; the kept pasts must never be used when
    they are stale.
    """
    random = np.random.default_rng(0)
    cache = GrownCache(LAYERS, batch=SLOTS, capacity=CAPACITY, dtype=np.dtype(np.float32))
    graph = Growing(cache, tmp_path)
    truth = [states(random, 0) for _ in range(SLOTS)]
    lengths = [0] * SLOTS

    def feed(slots: list[int], count: int) -> None:
        new = [states(random, count) for _ in slots]
        arrays = [
            np.stack([row[layer][half] for row in new])
            for layer in range(len(LAYERS))
            for half in range(2)
        ]
        mask = graph.run(slots, [lengths[slot] for slot in slots], arrays)
        width = max(lengths[slot] for slot in slots)
        for row, slot in enumerate(slots):
            np.testing.assert_array_equal(
                mask[row], np.arange(width + count) >= width - lengths[slot]
            )
            pairs = zip(truth[slot], new[row], strict=True)
            truth[slot] = [
                tuple(np.concatenate(halves, 1) for halves in zip(*pair, strict=True))
                for pair in pairs
            ]
            lengths[slot] += count

    for _ in range(300):
        action, slot = random.integers(6), int(random.integers(SLOTS))
        if action == 0:
            truth[slot], lengths[slot] = (
                (prefix := states(random, int(random.integers(1, 6)))),
                prefix[0][0].shape[1],
            )
            cache.write(slot, cache.pack(prefix))
        elif action == 1 and lengths[slot] + 3 <= CAPACITY:
            feed([slot], 3)
        elif action == 2:
            cache.copy(slot, target := (slot + 1) % SLOTS, start=0, stop=lengths[slot])
            truth[target], lengths[target] = truth[slot], lengths[slot]
        elif action == 3 and lengths[slot] > 1:
            lengths[slot] -= 1
            truth[slot] = [tuple(half[:, :-1] for half in pair) for pair in truth[slot]]
        else:
            rows = list(range(int(random.integers(1, SLOTS + 1))))
            if max(lengths[row] for row in rows) < CAPACITY:
                feed(rows, 1)
        for index in range(SLOTS):
            found = cache.unpack(cache.read(index, lengths[index]))
            for got, wanted in zip(found, truth[index], strict=True):
                np.testing.assert_array_equal(got[0], wanted[0])
                np.testing.assert_array_equal(got[1], wanted[1])


def test_a_following_step_copies_no_past(tmp_path: Path) -> None:
    """What came out is what goes in next, and what goes in is right-aligned with zeros before."""
    random = np.random.default_rng(1)
    cache = GrownCache(LAYERS, batch=SLOTS, capacity=CAPACITY, dtype=np.dtype(np.float32))
    graph = Growing(cache, tmp_path)
    for slot, length in enumerate((2, 5)):
        cache.write(slot, cache.pack(states(random, length)))
    past = cache._several
    for step in range(3):
        assert past.holds([0, 1], [2 + step, 5 + step]) is (step > 0)
        new = [
            np.ones((2, layer.kv_heads, 1, layer.head_size), np.float32)
            for layer in LAYERS
            for _ in range(2)
        ]
        graph.run([0, 1], [2 + step, 5 + step], new)
    (keys, _) = past.past(2, 8)[0][0]  # layer 0: [B, H, T, D]
    assert not keys[0, :, :3].any()
    np.testing.assert_array_equal(keys[0, :, 3:], cache.unpack(cache.read(0, 5))[0][0])
    cache.copy(2, 0, start=0, stop=1)
    assert not past.holds([0, 1], [5, 8])


def test_masks_of_a_cache_that_is_worked_on_in_place() -> None:
    class Ignored:
        def bind_input(self, *_: object) -> None: ...

        bind_output = bind_input

    cache = MaskedCache(LAYERS, batch=SLOTS, capacity=CAPACITY, dtype=np.dtype(np.float32))
    mask = cache.hand(Ignored(), [0, 1], [3, 1], 2)
    np.testing.assert_array_equal(mask, [[True] * 5, [True, True, True, False, False]])


def test_a_manifests_graph_is_checked() -> None:
    graph = PastGraph(exporter="optimum", inputs=("attention_mask",), mixed=True)
    assert "rows of any lengths together" in graph.to_text()
    with pytest.raises(ValueError, match="graph input 'pixel_values' is unknown"):
        PastGraph(exporter="x", inputs=("pixel_values",))
    with pytest.raises(ValueError, match="graph cache 'paged' is unknown"):
        PastGraph(exporter="x", cache="paged")
