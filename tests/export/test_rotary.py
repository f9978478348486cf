"""Rotation is left to the attention node only where it is exactly the model's own."""

from __future__ import annotations

import pytest
import torch
from zoo import POSITIONS, tiny_model

from edgeprefix.export.rotary import RotaryTable, plan_rotary, rotate


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_type": "default", "rope_theta": 10000.0},
        {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0},
        {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0},
        {
            "rope_type": "yarn",
            "factor": 4.0,
            "original_max_position_embeddings": 64,
            "rope_theta": 10000.0,
        },
        {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
            "rope_theta": 10000.0,
        },
    ],
    ids=lambda rope: rope["rope_type"],
)
def test_angles_that_depend_on_the_position_alone_become_a_table(rope: dict[str, object]) -> None:
    plan = plan_rotary(tiny_model("llama", rope_parameters=rope), POSITIONS)
    assert plan is not None
    assert plan.layers == {0: 0, 1: 0}
    assert plan.tables[0].cos.shape == (POSITIONS, 8)


def test_angles_that_depend_on_the_length_stay_in_the_graph() -> None:
    rope = {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "original_max_position_embeddings": 64,
        "factor": 4.0,
        "short_factor": [1.0] * 8,
        "long_factor": [float(2 + i) for i in range(8)],
    }
    assert plan_rotary(tiny_model("llama", rope_parameters=rope), POSITIONS) is None


def test_layers_of_two_kinds_get_a_table_each() -> None:
    plan = plan_rotary(tiny_model("gemma3_text"), POSITIONS)
    assert plan is not None
    assert plan.layers == {0: 0, 1: 1}


def test_a_layer_that_does_not_rotate_has_no_table() -> None:
    # Its full-attention layers have no positions
    plan = plan_rotary(tiny_model("cohere2"), POSITIONS)
    assert plan is not None
    assert plan.table(0) is not None
    assert plan.table(1) is None


def test_a_model_without_rotation_has_no_plan() -> None:
    assert plan_rotary(tiny_model("gpt2"), POSITIONS) is None


def test_what_the_kernel_cannot_rotate_is_not_left_to_it() -> None:
    """ONNX Runtime wants head sizes in sixteens."""
    assert plan_rotary(tiny_model("llama", head_dim=24), POSITIONS) is None


@pytest.mark.parametrize("interleaved", [False, True])
def test_rotation_keeps_lengths_and_leaves_the_rest_alone(interleaved: bool) -> None:
    angles = torch.rand(5, 4)
    table = RotaryTable(cos=angles.cos(), sin=angles.sin(), interleaved=interleaved)
    states = torch.randn(2, 3, 5, 12)  # the first 8 of 12 are rotated
    turned = rotate(states, table)
    torch.testing.assert_close(turned.norm(dim=-1), states.norm(dim=-1))
    assert torch.equal(turned[..., 8:], states[..., 8:])
