"""What positions do to keys, found by rehearsal; a key moved by it equals the key that torch
computes there.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache
from zoo import POSITIONS, VOCABULARY, tiny_model

from edgeprefix.export.positions import survey_positions
from edgeprefix.runtime.contracts.positions import ABSOLUTE, BY_LENGTH, RELATIVE, UNKNOWN, Positions

IDS = torch.arange(3, 12)[None] * 31 % VOCABULARY  # fewer than the tiny models' window
SHIFT = 100

ROPES = {
    "linear": {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0},
    "yarn": {
        "rope_type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": 64,
        "rope_theta": 10000.0,
    },
    "llama3": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
        "rope_theta": 10000.0,
    },
}


def keys(model: PreTrainedModel, start: int) -> list[np.ndarray]:
    """Keys of a text that begins at position `start`, each [H, S, D]."""
    cache = DynamicCache()  # without the configuration: a windowed cache would forget
    positions = start + torch.arange(IDS.shape[1])[None]
    with torch.no_grad():
        model(IDS, position_ids=positions, past_key_values=cache, use_cache=True)
    return [layer.keys[0].numpy() for layer in cache.layers]


def assert_moves_as_torch(model: PreTrainedModel) -> Positions:
    found = survey_positions(model, POSITIONS)
    assert found.kind == RELATIVE
    for index, (here, there) in enumerate(zip(keys(model, 0), keys(model, SHIFT), strict=True)):
        rotation = found.rotation(index)
        moved = here if rotation is None else rotation.turn(here, SHIFT)
        np.testing.assert_allclose(moved, there, atol=2e-5 * np.abs(there).max(), rtol=0)
        if rotation is not None:
            np.testing.assert_allclose(
                rotation.turn(moved, -SHIFT), here, atol=1e-5 * np.abs(here).max(), rtol=0
            )
    return found


@pytest.mark.parametrize("rope", ROPES)
def test_scaled_rotations(rope: str) -> None:
    assert_moves_as_torch(tiny_model("llama", rope_parameters=ROPES[rope]))


@pytest.mark.parametrize(
    ("model_type", "turned", "interleaved"),
    [
        ("llama", 16, False),
        ("gpt_neox", 4, False),  # a quarter of each head
        ("phi", 8, False),
        ("cohere", 16, True),
        ("gptj", 16, True),
        ("glm", 8, True),
        ("falcon", 16, False),
    ],
)
def test_whole_partial_and_interleaved_rotations(
    model_type: str, turned: int, interleaved: bool
) -> None:
    (rotation,) = assert_moves_as_torch(tiny_model(model_type)).rotations
    assert (2 * len(rotation.frequencies), rotation.interleaved) == (turned, interleaved)


def test_layers_of_two_kinds_have_a_rotation_each() -> None:
    found = assert_moves_as_torch(tiny_model("gemma3_text"))
    assert found.layers == (0, 1)
    assert found.rotations[0].frequencies[1] != pytest.approx(
        found.rotations[1].frequencies[1], rel=0.1
    )


def test_layers_without_positions_do_not_rotate() -> None:
    assert assert_moves_as_torch(tiny_model("cohere2")).layers == (0, None)
    assert survey_positions(tiny_model("bloom"), POSITIONS) == Positions(
        kind=RELATIVE, layers=(None, None)
    )


@pytest.mark.parametrize("model_type", ["gpt2", "opt", "biogpt", "ctrl", "xglm", "gpt_neo"])
def test_positions_that_are_added_to_the_text(model_type: str) -> None:
    assert survey_positions(tiny_model(model_type), POSITIONS) == Positions(kind=ABSOLUTE)


def test_angles_that_depend_on_the_length() -> None:
    rope = {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "original_max_position_embeddings": 64,
        "factor": 4.0,
        "short_factor": [1.0] * 8,
        "long_factor": [float(2 + i) for i in range(8)],
    }
    assert survey_positions(tiny_model("llama", rope_parameters=rope), POSITIONS) == Positions(
        kind=BY_LENGTH
    )


def test_a_norm_behind_the_rotation_cannot_be_turned() -> None:
    assert survey_positions(tiny_model("hunyuan_v1_dense"), POSITIONS) == Positions(kind=UNKNOWN)
