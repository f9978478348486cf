"""Training on a quantised bundle's weights."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from rows import record_rows

from edgeprefix.base.rounding import dequantise
from edgeprefix.export import export_decoder
from edgeprefix.runtime.errors import TrainingError
from edgeprefix.train import PrefixConfig, TrainConfig, load_base, train_prefix
from tiny import save_checkpoint, tiny_gpt2, tiny_llama


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_weights_are_those_of_the_exported_bundle(
    precision: str, llama_base: Path, tmp_path: Path
) -> None:
    """Every rounded projection stands, row by row, in some matrix of the graph (which merges some
    of them).
    """
    export_decoder(llama_base, tmp_path / "bundle", precision=precision, verify=False)
    stored = np.concatenate(
        [matrix.ravel() for matrix in bundle_matrices(tmp_path / "bundle", precision)]
    )
    content = stored.astype(np.float32).tobytes()
    known = {content[place : place + 16] for place in range(0, len(content), 16)}
    model = load_base(llama_base, precision="fp32", weights=precision).model
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            numbers = np.ascontiguousarray(module.weight.detach().numpy()).tobytes()
            pieces = {numbers[place : place + 16] for place in range(0, len(numbers), 16)}
            assert pieces <= known, f"{name} has numbers that the bundle does not"


def bundle_matrices(bundle: Path, precision: str) -> Iterator[np.ndarray[Any, Any]]:
    """Each MatMulNBits weight as plain numbers [N, K]."""
    graph = ir.load(bundle / "decoder.onnx").graph
    for node in graph:
        if node.op_type == "MatMulNBits":
            packed, scales, *rest = (
                None if value is None else value.const_value for value in node.inputs[1:4]
            )
            zeros = rest[0].numpy() if rest and rest[0] is not None else None
            bits = node.attributes["bits"].as_int()
            blocks = scales.numpy().reshape(packed.shape[0], -1)
            yield dequantise(packed.numpy(), blocks, zeros, bits)[
                :, : node.attributes["K"].as_int()
            ]


@pytest.mark.parametrize("make", [tiny_llama, tiny_gpt2], ids=["llama", "gpt2"])
def test_a_prefix_trains_on_rounded_weights_and_belongs_to_the_same_base(
    make: object, tmp_path: Path
) -> None:
    folder = save_checkpoint(make(), tmp_path / "base")  # type: ignore[operator]
    exact = load_base(folder, precision="fp32")
    rounded = load_base(folder, precision="fp32", weights="int4")
    assert rounded.identity.sha256 == exact.identity.sha256
    ids = torch.arange(2, 12)[None]
    change = (rounded.logits([], ids) - exact.logits([], ids)).abs().max()
    assert 1e-4 < float(change) < 3.0
    result = train_prefix(
        folder,
        record_rows(),
        record_rows(8, start=100),
        task="cities",
        out=tmp_path / "run",
        prefix=PrefixConfig(length=6),
        train=TrainConfig(steps=20, lr=0.3, batch_size=8, precision="fp32", weights="int4"),
    )
    assert result.validation_loss < result.base_validation_loss


def test_unknown_weights_are_refused(llama_base: Path) -> None:
    with pytest.raises(
        TrainingError, match="weights 'int2' is unknown; choose one of checkpoint, int8, int4"
    ):
        load_base(llama_base, weights="int2")
