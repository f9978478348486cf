"""`load_base`: a checkpoint becomes the frozen model that a prefix is trained over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgeprefix.base import Base
from edgeprefix.base import load_base as load_checkpoint_base
from edgeprefix.runtime.contracts.tokenizer import TextTokenizer
from edgeprefix.runtime.errors import CheckpointError, TrainingError
from edgeprefix.train.devices import choose_device
from edgeprefix.train.model import FrozenModel
from edgeprefix.train.precision import PRECISIONS, has_fast_bf16, set_precision
from edgeprefix.train.recompute import decoder_layers
from edgeprefix.train.rounding import WEIGHTS, round_weights
from edgeprefix.train.routes import layer_shapes, with_best_route


def load_base(
    source: str | Path,
    *,
    revision: str | None = None,
    precision: str = "auto",
    device: str = "auto",
    weights: str = "checkpoint",
    recompute: bool = False,
) -> FrozenModel:
    """Loads a base from a checkpoint's folder, a GGUF file or the hub (`revision`: branch, tag,
    commit), frozen, to train a prefix over it.

    `weights` "int8" or "int4" rounds them as a bundle of that precision holds them. `precision`
    "auto" takes bf16 where the device multiplies it quickly, else fp32; `device` "auto" takes a GPU
    if there is one. `recompute` keeps less in memory while training and takes longer. Raises
    CheckpointError when the folder or id cannot be loaded, TrainingError (UnsupportedBaseError)
    when the model cannot take a prefix.
    """
    if weights not in WEIGHTS:
        raise TrainingError(f"weights {weights!r} is unknown; choose one of {', '.join(WEIGHTS)}")
    if precision not in PRECISIONS:
        raise TrainingError(
            f"precision {precision!r} is unknown; choose one of {', '.join(PRECISIONS)}"
        )
    target = choose_device(device)
    if precision == "auto":
        precision = "bf16" if has_fast_bf16(target) else "fp32"
    hold = "bf16" if precision == "bf16" and weights == "checkpoint" else "stored"
    base = load_checkpoint_base(source, revision=revision, hold=hold, fast_attention=True)
    model: Any = base.model
    tokenizer, identity = _text_tokenizer(base), base.identity
    del base  # and with it the stored numbers of what is turned into another dtype now
    parameters = sum(weight.numel() for weight in model.parameters())
    if weights != "checkpoint":
        round_weights(model, weights, precision)
    set_precision(model, precision)
    model.to(target)
    frozen = FrozenModel(
        model=model,
        tokenizer=tokenizer,
        identity=identity,
        layers=layer_shapes(model, precision),
        precision=precision,
        route="cache",
        source=str(source),
        revision=revision,
        parameters=parameters,
        weights=weights,
        recompute=recompute,
    )
    frozen = with_best_route(frozen)
    if recompute and not (frozen.shares_prefix and decoder_layers(model)):
        raise TrainingError(
            f"{type(model).__name__} cannot compute its layers again with a prefix in front; "
            "leave out --recompute, and lower "
            "--batch-size or --max-tokens to save memory"
        )
    return frozen


def _text_tokenizer(base: Base) -> TextTokenizer:
    if base.tokenizer is None:
        raise CheckpointError(
            f"{base.folder} has no tokenizer, and training needs one: copy tokenizer.json into the "
            "checkpoint's folder; of a GGUF file take one with its vocabulary"
        )
    return TextTokenizer(base.tokenizer, end_ids=base.end_ids)
