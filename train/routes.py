"""How a prefix reaches a base: found out by trying, with the plainest way as the judge."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import torch
from transformers.cache_utils import DynamicCache

from edgeprefix.runtime.errors import TrainingError
from edgeprefix.train.model import FrozenModel, LayerShape

logger = logging.getLogger(__name__)

# Two routes add up the same numbers in another order. What that may make of the difference that a
# tenth of the prefix makes: 0.05 to 0.16 was met in bf16, 1e-5 in fp32.
_ROUTE_NOISE = {"bf16": 0.3, "fp32": 0.01}


@torch.no_grad()
def layer_shapes(model: Any, precision: str) -> tuple[LayerShape, ...]:
    """Asks the model itself: one token through it, then a look into its cache."""
    cache: Any = DynamicCache()
    device = next(model.parameters()).device
    try:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            model(
                input_ids=torch.zeros(1, 1, dtype=torch.long, device=device),
                past_key_values=cache,
                use_cache=True,
            )
        return tuple(
            LayerShape(layer.keys.shape[1], layer.keys.shape[3], layer.values.shape[3])
            for layer in cache.layers
        )
    except (AttributeError, TypeError, ValueError, IndexError) as error:
        raise TrainingError(
            f"{type(model).__name__} keeps no keys and values per layer, so it cannot take a "
            f"prefix: {error}"
        ) from error


def with_best_route(base: FrozenModel) -> FrozenModel:
    """The fastest route by which the model gives the logits that it gives over a filled cache."""
    # Packing was measured on CPUs only; a GPU reads groups of like length, padded.
    routes = ("packed", "shared") if base.device.type == "cpu" else ("shared",)
    for route in routes:
        candidate = replace(base, route=route)
        if _agrees(candidate, base):
            return candidate
    return base


@torch.no_grad()
def _agrees(candidate: FrozenModel, base: FrozenModel) -> bool:
    """Compares two routes on two rows of unlike length behind a prefix; the yardstick is what a
    tenth of that prefix does.
    """
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(
        base.model.config.get_text_config().vocab_size, (2, 5), generator=generator
    ).to(base.device)
    prefix = [
        (
            torch.randn(shape.kv_heads, 3, shape.key_size, generator=generator).to(base.device),
            torch.randn(shape.kv_heads, 3, shape.value_size, generator=generator).to(base.device),
        )
        for shape in base.layers
    ]
    rows = torch.arange(8, device=base.device)  # the second row has three tokens
    expected = base.logits(prefix, ids, rows)
    try:
        actual = candidate.logits(prefix, ids, rows, lengths=(5, 3))
    except (AttributeError, TypeError, ValueError, IndexError, KeyError, RuntimeError) as error:
        logger.info(
            "%s does not take the route %r: %s", type(base.model).__name__, candidate.route, error
        )
        return False
    weaker = base.logits([(0.9 * key, 0.9 * value) for key, value in prefix], ids, rows)
    difference, yardstick = ((other - expected).norm() for other in (actual, weaker))
    return bool(difference <= _ROUTE_NOISE[base.precision] * yardstick)
