"""Does an adapter fit a base? Checked before a number is used, and said in numbers."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from edgeprefix.export.peft.config import AdapterConfig
from edgeprefix.export.trace import Layer
from edgeprefix.runtime.contracts.identity import BaseIdentity
from edgeprefix.runtime.errors import BaseMismatchError, ExportError


def require_layers_fit(
    folder: Path,
    config: AdapterConfig,
    prompt: Tensor,
    identity: BaseIdentity,
    layers: tuple[Layer, ...],
) -> None:
    """Keys and values [P, L·2·H·D] against a base's layers. Raises BaseMismatchError, or
    ExportError for a broken folder.
    """
    L, H, width = config.layers, config.heads, config.token_dim
    if L is None or H is None or width is None:
        facts = {"num_layers": L, "num_attention_heads": H, "token_dim": width}
        missing = ", ".join(name for name, value in facts.items() if value is None)
        raise ExportError(f"{folder}: its configuration lacks {missing}; save the adapter again")
    if prompt.shape[1] != L * 2 * width or width % H:
        raise ExportError(
            f"{folder}: keys and values have {prompt.shape[1]} numbers a token, the configuration "
            f"says {L} layers of 2 x {width} "
            f"in {H} heads; the two files do not belong together"
        )
    _require_no_difference(folder, config, identity, _differences(L, (H, width // H), layers))


def require_width_fits(
    folder: Path, config: AdapterConfig, prompt: Tensor, identity: BaseIdentity, width: int
) -> None:
    """Embeddings [P, width] against the base's own width. Raises BaseMismatchError."""
    got = prompt.shape[1]
    _require_no_difference(
        folder,
        config,
        identity,
        [] if got == width else [f"embeddings of width {got}, the base has {width}"],
    )


def require_positions(
    folder: Path, config: AdapterConfig, identity: BaseIdentity, positions: int
) -> None:
    """Virtual tokens against the positions of the base. Raises BaseMismatchError."""
    differences = (
        []
        if config.length < positions
        else [f"{config.length} virtual tokens, the base has {positions} positions"]
    )
    _require_no_difference(folder, config, identity, differences)


def _differences(count: int, heads: tuple[int, int], layers: tuple[Layer, ...]) -> list[str]:
    """What tells `count` layers of (H, D) from the base's layers; of unequal layers the first."""
    found = [] if len(layers) == count else [f"{count} layers, the base has {len(layers)}"]
    for index, layer in enumerate(layers):
        theirs = (layer.shape.kv_heads, layer.shape.head_size)
        if theirs != heads:
            return [
                *found,
                (
                    f"{heads[0]} key/value heads of {heads[1]}, layer {index} of the base has "
                    f"{theirs[0]} of {theirs[1]}"
                ),
            ]
    return found


def _require_no_difference(
    folder: Path, config: AdapterConfig, identity: BaseIdentity, differences: list[str]
) -> None:
    if differences:
        trained = f"it was trained on {config.base!r}; " if config.base else ""
        raise BaseMismatchError(
            f"adapter {folder} does not fit base {identity}: it has {'; '.join(differences)}; "
            f"{trained}"
            "give the base that it belongs to with --base"
        )
