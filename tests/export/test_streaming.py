"""Big bases are held in the checkpoint's own dtype: the same bundle, without a second copy of the
weights.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from zoo import tiny_model

from edgeprefix.base import load_base
from edgeprefix.base.streaming import hollow_model
from edgeprefix.export.bundle import build_graph, export_decoder, write_bundle
from edgeprefix.export.rotary import plan_rotary
from edgeprefix.export.trace import survey_layers
from tiny import save_checkpoint, tiny_llama


@pytest.fixture(scope="module")
def half_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(tiny_llama().bfloat16(), tmp_path_factory.mktemp("base") / "half")


def test_a_hollow_model_takes_no_memory_and_behaves_the_same() -> None:
    model = tiny_model("gemma3_text")
    hollow = hollow_model(model.config)
    held = sum(parameter.untyped_storage().nbytes() for parameter in hollow.parameters())
    assert held < 0.1 * sum(parameter.nbytes for parameter in model.parameters())
    assert survey_layers(hollow) == survey_layers(model)
    plans = [plan_rotary(one, 256) for one in (hollow, model)]
    assert plans[0] is not None
    assert plans[1] is not None
    assert plans[0].layers == plans[1].layers


def test_streamed_torch_computes_in_fp32(half_base: Path) -> None:
    whole, streamed = (load_base(half_base, hold=hold) for hold in ("fp32", "streamed"))
    ids = torch.arange(20)[None]
    assert torch.equal(whole.model(ids).logits, streamed.model(ids).logits)
    assert {parameter.dtype for parameter in streamed.model.parameters()} == {torch.bfloat16}


def test_a_model_with_eyes_is_streamed_too(tmp_path: Path) -> None:
    """Convolutions write into their weights when they are made, and some buffers are views."""
    folder = save_checkpoint(tiny_model("gemma3").bfloat16(), tmp_path / "base")
    ids = torch.arange(20)[None]
    whole, streamed = (load_base(folder, hold=hold) for hold in ("fp32", "streamed"))
    assert torch.equal(whole.model(ids).logits, streamed.model(ids).logits)


@pytest.mark.slow
def test_streamed_bundles_are_the_same_bytes(half_base: Path, tmp_path: Path) -> None:
    for hold in ("fp32", "streamed"):
        base, folder = load_base(half_base, hold=hold), tmp_path / hold
        folder.mkdir()
        layers, graph = build_graph(base)
        write_bundle(base, layers, graph, folder, precision="fp32")
    for name in ("decoder.onnx", "decoder.onnx.data"):
        one, other = ((tmp_path / hold / name).read_bytes() for hold in ("fp32", "streamed"))
        assert one == other


@pytest.mark.slow
def test_smoke_tries_a_small_copy_first(half_base: Path, tmp_path: Path) -> None:
    assert export_decoder(half_base, tmp_path / "bundle", smoke=True).parity["passed"]
