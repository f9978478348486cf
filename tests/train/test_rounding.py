"""Training on a quantised bundle's weights (which they are: tests/base/test_rounded_weights.py)."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from rows import record_rows

from edgeprefix.runtime.errors import TrainingError
from edgeprefix.train import PrefixConfig, TrainConfig, load_base, train_prefix
from tiny import save_checkpoint, tiny_gpt2, tiny_llama


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
