"""How a base marks positions in its keys, found out by rehearsal: what `compose` needs to move a
prefix.

One token alone attends to itself, whatever its position, so all that its position can change is its
key, in every layer. The model runs on the same token at several positions: keys that turn pair by
pair give the rotation, values that change betray positions that are added to the text.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from transformers import PreTrainedModel

from edgeprefix.export.calls import AttentionCall
from edgeprefix.export.interception import intercepted
from edgeprefix.runtime.contracts.positions import (
    ABSOLUTE,
    BY_LENGTH,
    RELATIVE,
    UNKNOWN,
    Positions,
    Rotation,
)

_LOW = (0, 1, 2, 4)
# Relative: fp32, and the model's own rounding of position times frequency at small positions
_TOLERANCE = 1e-4
_FAR_TOLERANCE = 5e-3  # at thousands of positions that rounding is some 1e-4 radians
_TOKEN = 5

Keys = npt.NDArray[np.float64]


def survey_positions(model: PreTrainedModel, max_positions: int) -> Positions:
    """What positions do to this model's keys, layer by layer in cache order."""
    takes_positions = "position_ids" in inspect.signature(model.forward).parameters
    low = [position for position in _LOW if position < max_positions]
    near = _Rehearsal(model, low, takes_positions)
    if not takes_positions:
        kind = RELATIVE if all(near.biased) else ABSOLUTE  # linear biases count from the query
        return Positions(kind=kind, layers=(None,) * len(near.keys) if kind == RELATIVE else ())
    far = _Rehearsal(model, _ladder(max_positions), takes_positions)
    if any(not _same(value[:1], value) for value in (*near.values, *far.values)):
        return Positions(kind=ABSOLUTE)
    if any(
        not _same(one, other[: len(one)]) for one, other in zip(near.keys, far.keys, strict=True)
    ):
        return Positions(kind=BY_LENGTH)
    return _positions(far)


class _Rehearsal:
    """Keys and values, each [positions, H, D], of one token at several positions, layer by
    layer.
    """

    def __init__(
        self, model: PreTrainedModel, positions: Sequence[int], takes_positions: bool
    ) -> None:
        found: dict[int, tuple[Keys, Keys, bool]] = {}

        def attend(call: AttentionCall) -> Tensor:
            key, value = (states[:, :, 0].double().numpy() for states in (call.key, call.value))
            found[call.layer] = (key, value, call.bias is not None)
            return call.value.repeat_interleave(
                call.query.shape[1] // call.key.shape[1], 1
            ).transpose(1, 2)

        vocabulary = int(model.config.get_text_config(decoder=True).vocab_size)
        ids = torch.full((len(positions), 1), min(_TOKEN, vocabulary - 1))
        options: dict[str, Any] = (
            {"position_ids": torch.tensor(positions)[:, None]} if takes_positions else {}
        )
        with torch.no_grad(), intercepted(model, attend) as cache:
            model(input_ids=ids, past_key_values=cache, use_cache=True, **options)
        layers = [found[layer] for layer in sorted(found)]
        self.positions = list(positions)
        self.keys = [key for key, _, _ in layers]
        self.values = [value for _, value, _ in layers]
        self.biased = [biased for _, _, biased in layers]


def _ladder(max_positions: int) -> list[int]:
    """0, 1, 2, 4, … and the last position: each step tells the frequency twice as exactly without
    losing count of turns.
    """
    steps = [
        0,
        *(1 << power for power in range(max_positions.bit_length()) if 1 << power < max_positions),
    ]
    return sorted({*steps, max_positions - 1})


def _positions(rehearsal: _Rehearsal) -> Positions:
    rotations: list[Rotation] = []
    layers: list[int | None] = []
    for key in rehearsal.keys:
        if _same(key[:1], key):
            layers.append(None)
            continue
        rotation = _rotation(key, rehearsal.positions)
        if rotation is None:
            return Positions(kind=UNKNOWN)
        known = next(
            (index for index, other in enumerate(rotations) if _alike(rotation, other)), None
        )
        if known is None:
            rotations.append(rotation)
        layers.append(len(rotations) - 1 if known is None else known)
    return Positions(kind=RELATIVE, rotations=tuple(rotations), layers=tuple(layers))


def _rotation(key: Keys, positions: Sequence[int]) -> Rotation | None:
    """The rotation that turns key[0] into key[i] at positions[i], None when there is none."""
    size = key.shape[-1]
    moving = np.flatnonzero(np.abs(key - key[:1]).max(axis=(0, 1)) > _TOLERANCE * np.abs(key).max())
    for turned in range(2 * (int(moving[-1]) // 2 + 1), size + 1, 2):
        for interleaved in (False, True):
            rotation = Rotation(
                frequencies=_frequencies(key, positions, turned, interleaved),
                interleaved=interleaved,
            )
            if _explains(rotation, key, positions):
                return rotation
    return None


def _frequencies(
    key: Keys, positions: Sequence[int], turned: int, interleaved: bool
) -> tuple[float, ...]:
    """Radians per position of each pair, from its angles at growing positions."""
    pairs = _complex(key, turned, interleaved)
    turns = (pairs * pairs[:1].conj()).sum(axis=1)  # [positions, R/2]: heads agree on the angle
    frequency = np.zeros(turns.shape[1])
    for position, turn in zip(positions[1:], turns[1:], strict=True):
        frequency += np.angle(turn * np.exp(-1j * frequency * position)) / position
    return tuple(float(number) for number in frequency)


def _explains(rotation: Rotation, key: Keys, positions: Sequence[int]) -> bool:
    """Whether the rotation, applied to the key at position 0, gives those at the others, pair by
    pair.
    """
    pairs = _complex(key, 2 * len(rotation.frequencies), rotation.interleaved)
    angles = np.outer(positions, rotation.frequencies)[:, None]  # [positions, 1, R/2]
    error = np.abs(pairs - pairs[:1] * np.exp(1j * angles)).max(axis=(1, 2))
    allowed = (
        np.where(np.asarray(positions) < 256, _TOLERANCE, _FAR_TOLERANCE) * np.abs(pairs).max()
    )
    return bool((error <= allowed).all())


def _complex(key: Keys, turned: int, interleaved: bool) -> npt.NDArray[np.complex128]:
    """The first `turned` numbers of each key as complex numbers, [positions, H, turned/2]."""
    part = key[..., :turned]
    first, second = (
        (part[..., ::2], part[..., 1::2])
        if interleaved
        else (part[..., : turned // 2], part[..., turned // 2 :])
    )
    pairs: npt.NDArray[np.complex128] = first + 1j * second
    return pairs


def _alike(one: Rotation, other: Rotation) -> bool:
    """Layers of one table give frequencies that differ by rounding only."""
    if one.interleaved != other.interleaved or len(one.frequencies) != len(other.frequencies):
        return False
    return bool(np.allclose(one.frequencies, other.frequencies, rtol=1e-5, atol=1e-7))


def _same(one: Keys, other: Keys) -> bool:
    return bool(np.abs(one - other).max() <= _TOLERANCE * max(np.abs(other).max(), 1e-30))
