"""A step of one in a key's coordinates moves the scores of the base's own queries alike in every
direction.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from rows import record_rows
from torch import Tensor

from edgeprefix.train import FrozenModel, load_base
from edgeprefix.train.attention import attention_watched
from edgeprefix.train.batches import rows_of_tokens, text_of_rows
from edgeprefix.train.data import Example, load_data
from edgeprefix.train.units import measure_units
from tiny import save_checkpoint, tiny_gpt2, tiny_llama, tiny_mistral

LENGTH = 6


def examples_of(base: FrozenModel) -> tuple[Example, ...]:
    return tuple(
        load_data(
            record_rows(),
            record_rows(4),
            tokenizer=base.tokenizer,
            prompt="{input}\n",
            max_tokens=90,
        ).train
    )


@torch.no_grad()
def queries_of(base: FrozenModel, examples: tuple[Example, ...]) -> dict[int, Tensor]:
    """All queries by layer and key/value head, [H, N, D], over training rows behind a prefix of the
    same length.
    """
    seen: dict[int, list[Tensor]] = {}

    def note(layer: int, query: Tensor, _: Tensor, __: Tensor) -> None:
        seen.setdefault(layer, []).append(
            query[0].reshape(base.layers[layer].kv_heads, -1, query.shape[-1]).double()
        )

    prefix = base.key_values(rows_of_tokens(examples, LENGTH, "another")[0][:LENGTH])
    with attention_watched(note):
        for row in rows_of_tokens(examples, 2048, "0/units"):
            base.logits(prefix, torch.tensor([row]))
    return {layer: torch.cat(parts, dim=1) for layer, parts in seen.items()}


@pytest.mark.parametrize(
    "make",
    [tiny_llama, tiny_gpt2, lambda: tiny_mistral(window=48)],
    ids=["llama", "gpt2", "window"],
)
def test_scores_vary_alike_in_every_direction(make, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    base = load_base(save_checkpoint(make(), tmp_path / "base"), precision="fp32")
    examples = examples_of(base)
    units = measure_units(base, examples, length=LENGTH, seed=0)
    queries = queries_of(base, examples)
    assert len(units) == len(queries) == len(base.layers)
    for index, unit in enumerate(units):
        # [H, N, D]: what a step of one does to each score
        scores = queries[index] @ unit.key.double().transpose(1, 2)
        moment = scores.transpose(1, 2) @ scores / scores.shape[1]
        sizes = torch.linalg.eigvalsh(moment)
        plain = torch.linalg.eigvalsh(queries[index].transpose(1, 2) @ queries[index])
        assert bool((sizes.amax(-1) / sizes.amin(-1) < 3).all()), sizes
        assert bool((plain.amax(-1) / plain.amin(-1) > 5).all()), (
            "the queries had no favourite direction to begin with"
        )


def test_values_are_measured_in_the_bases_own_spread(llama: FrozenModel) -> None:
    examples = examples_of(llama)
    units = measure_units(llama, examples, length=LENGTH, seed=0)
    rows = rows_of_tokens(examples, 2048, "0/units")
    front = llama.key_values(text_of_rows(examples, LENGTH, "0/front"))
    behind = [llama.key_values(row, behind=front) for row in rows]
    for index, unit in enumerate(units):
        values = torch.cat([layers[index][1][:, LENGTH:].flatten() for layers in behind])
        assert unit.value == pytest.approx(float(values.square().mean().sqrt()), rel=1e-4)


def test_padding_counts_for_nothing(llama: FrozenModel) -> None:
    """A base that reads its rows padded is measured as one that reads them end to end."""
    examples = examples_of(llama)
    assert (llama.route, len({row.length for row in examples}) > 1) == ("packed", True)
    padded = FrozenModel(**{**vars(llama), "route": "shared"})
    for one, other in zip(
        measure_units(llama, examples, length=LENGTH, seed=0),
        measure_units(padded, examples, length=LENGTH, seed=0),
        strict=True,
    ):
        torch.testing.assert_close(one.key, other.key, rtol=1e-3, atol=1e-5)
        assert one.value == pytest.approx(other.value, rel=1e-4)


def test_a_base_that_hides_its_queries_keeps_the_keys_own_spread(llama: FrozenModel) -> None:
    hidden = FrozenModel(**{**vars(llama), "route": "cache"})
    for unit, shape in zip(
        measure_units(hidden, examples_of(llama), length=LENGTH, seed=0), llama.layers, strict=True
    ):
        assert torch.equal(
            unit.key, unit.key[0, 0, 0] * torch.eye(shape.key_size).repeat(shape.kv_heads, 1, 1)
        )
