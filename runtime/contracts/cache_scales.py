"""The steps of an int8 cache: one for each channel of each layer's keys and values, measured by the
exporter.

A number in the cache is its step count times the channel's scale. The scales are constants of the
graph, and stand in a file of the bundle too, since the runtime rounds prefixes when it writes them
into the cache. H key/value heads, D head size.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from edgeprefix.runtime.contracts.files import write_atomic
from edgeprefix.runtime.contracts.manifest import CACHE_SCALES_FILE, LayerShape
from edgeprefix.runtime.errors import BundleError, CapacityError

LARGEST_STEP = 127
SMALLEST_STEP = -128
LARGEST_CUT = 0.01
"""Share of a layer's keys or values in a prefix that may lie beyond the steps, and be cut off.

On the embedded base texts have up to 0.4 %, and a prefix of 0.7 % costs 0.02 nats; one of 24 %,
trained after the bundle was made, costs 0.9 (docs/export.md).
"""

Array = npt.NDArray[np.float32]


class LayerScales(NamedTuple):
    """Scales of one layer, each fp32 [H, 1, D]."""

    key: Array
    value: Array


def cut_share(states: Sequence[tuple[Array, Array]], scales: Sequence[LayerScales]) -> float:
    """The largest share of numbers beyond the last step in any layer's keys or values; `states` are
    keys and values [H, P, D] of each layer.
    """
    return max(
        float(np.mean(~_holds(scale, array)))  # so that NaN counts as cut
        for layer, pair in zip(states, scales, strict=True)
        for array, scale in zip(layer, pair, strict=True)
    )


def _holds(scale: Array, array: Array) -> npt.NDArray[np.bool_]:
    """Which numbers round to a step that is there."""
    low, high = (SMALLEST_STEP - 0.5) * scale, (LARGEST_STEP + 0.5) * scale
    result: npt.NDArray[np.bool_] = (array >= low) & (array <= high)
    return result


def require_fit(
    states: Sequence[tuple[Array, Array]], scales: Sequence[LayerScales], *, where: str
) -> None:
    """Raises CapacityError when more than LARGEST_CUT of a prefix's numbers would be cut off."""
    share = cut_share(states, scales)
    if not share <= LARGEST_CUT:
        raise CapacityError(
            f"prefix {where} does not fit this bundle's int8 cache: {share:.1%} of a layer's "
            f"numbers lie beyond its steps and would be cut off (at most {LARGEST_CUT:.0%}); "
            "export the bundle again with --cache int8 --calibrate PREFIX, or without --cache int8"
        )


def save_scales(scales: Sequence[LayerScales], folder: str | Path) -> None:
    """Writes the bundle's file of scales."""
    tensors = {
        f"past_key_values.{index}.{kind}.scale": np.ascontiguousarray(array, np.float32)
        for index, layer in enumerate(scales)
        for kind, array in layer._asdict().items()
    }
    write_atomic(Path(folder) / CACHE_SCALES_FILE, save(tensors))


def load_scales(folder: str | Path, layers: Sequence[LayerShape]) -> tuple[LayerScales, ...]:
    """Reads it. Raises BundleError when it is missing or does not fit the layers."""
    path = Path(folder) / CACHE_SCALES_FILE
    try:
        tensors = load_file(path)
        scales = tuple(
            LayerScales(
                *(tensors[f"past_key_values.{index}.{kind}.scale"] for kind in LayerScales._fields)
            )
            for index in range(len(layers))
        )
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise BundleError(f"{path} cannot be read: {error}; export the bundle again") from error
    for index, (layer, pair) in enumerate(zip(layers, scales, strict=True)):
        if {array.shape for array in pair} != {(layer.kv_heads, 1, layer.head_size)}:
            raise BundleError(
                f"{path} has scales {pair.key.shape} for layer {index}, whose cache is of another "
                "shape"
            )
        if not all(
            array.dtype == np.float32 and (array > 0).all() and np.isfinite(array).all()
            for array in pair
        ):
            raise BundleError(
                f"{path} has scales for layer {index} that are no positive fp32 numbers; export "
                "the bundle again"
            )
    return scales
