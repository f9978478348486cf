"""The frozen base while a prefix is trained: never changed, asked only for the logits that a loss
needs.

The working copy keeps its matrix weights in bf16 where the machine multiplies bf16 quickly (AMX,
GPUs): the forward pass is then several times faster, while the residual stream, the norms and the
prefix stay fp32. Weights that a checkpoint keeps in bf16 lose nothing by that.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache

from edgeprefix.base.max_positions import max_positions
from edgeprefix.runtime.contracts.identity import BaseIdentity
from edgeprefix.runtime.contracts.tokenizer import TextTokenizer
from edgeprefix.train.attention import ROUTE, KeyValues, SharedPrefixCache, active_prefix
from edgeprefix.train.packing import Packing
from edgeprefix.train.recompute import recomputed
from edgeprefix.train.switches import AttentionSwitch, RowSelection

# Tokens: models make a mask over all pairs of them, of which attention needs the longest row's
# alone
_MOST_PACKED = 4096


class LayerShape(NamedTuple):
    """What the prefix of one layer looks like: [kv_heads, P, key_size] and [kv_heads, P,
    value_size].
    """

    kv_heads: int
    key_size: int
    value_size: int


@dataclass(frozen=True, kw_only=True, eq=False)
class FrozenModel:
    """A frozen causal language model that a prefix is trained over, with its tokenizer and
    identity.
    """

    model: Any
    tokenizer: TextTokenizer
    identity: BaseIdentity
    layers: tuple[LayerShape, ...]
    precision: str
    """"fp32" or "bf16": what its matrices are multiplied in."""
    route: str
    """How a prefix reaches the rows of a batch: "packed" and "shared" let all rows look at one, and
    packed rows lie end to end without padding; "cache" copies it into every row's cache (models
    without the attention interface).
    """
    source: str
    """What was given to `load_base`."""
    revision: str | None
    """The hub's, when one was given."""
    parameters: int
    """Number of weights, shared ones counted once."""
    weights: str = "checkpoint"
    """As in the checkpoint, or rounded to "int8" or "int4" as in a bundle."""
    recompute: bool = False
    """Whether layers are computed again in the backward pass instead of being kept (gradient
    checkpointing).
    """
    lock: threading.RLock = field(default_factory=threading.RLock, repr=False)
    """Held while the model is called, since hooks and the attention implementation are set on it
    for one call: trainings in several threads may share a base.
    """

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device  # type: ignore[no-any-return]

    @property
    def max_positions(self) -> int:
        """Positions that the base can address: prefix, prompt and target must fit."""
        return max_positions(self.model.config.get_text_config(decoder=True))

    @property
    def window(self) -> int | None:
        """Positions that a query sees, when every layer has a sliding window; else None."""
        config = self.model.config.get_text_config()
        window = getattr(config, "sliding_window", None)
        kinds = getattr(config, "layer_types", None) or ["sliding_attention"]
        return (
            int(window) if window and all(kind == "sliding_attention" for kind in kinds) else None
        )

    @property
    def shares_prefix(self) -> bool:
        """Whether the rows of a batch look at one prefix, through our attention function."""
        return self.route != "cache"

    def logits(
        self,
        prefix: KeyValues,
        ids: Tensor,
        rows: Tensor | None = None,
        lengths: Sequence[int] | None = None,
    ) -> Tensor:
        """Next-token logits [N, V] in fp32 for `rows` (indices into the flattened B·S; all when
        None) of ids [B, S].

        Rows of `ids` are padded on the right: a causal model never looks at what follows, so no
        mask is needed. With `rows` and the rows' real `lengths` given, bases of the route "packed"
        do not read the padding (but for very large batches). `prefix` may be empty. Only the wanted
        rows reach the vocabulary projection.
        """
        packing = None
        packs = bool(prefix) and self.route == "packed"
        if packs and rows is not None and lengths is not None and sum(lengths) <= _MOST_PACKED:
            packing = Packing(lengths, ids.device)
            ids, rows = packing.select(ids), packing.indices(rows, ids.shape[1])
        with self.calling(), RowSelection(self.model, rows):
            if not prefix:
                out = self.model(input_ids=ids, use_cache=False)
            elif self.shares_prefix:
                out = self._shared_prefix_forward(prefix, ids, packing)
            else:
                out = self._cache_forward(prefix, ids)
        logits: Tensor = out.logits.float()
        return logits.reshape(-1, logits.shape[-1])

    def _shared_prefix_forward(
        self, prefix: KeyValues, ids: Tensor, packing: Packing | None
    ) -> Any:
        P = prefix[0][0].shape[1]
        cache = SharedPrefixCache(layers=len(prefix), length=P)
        positions = {} if packing is None else {"position_ids": P + packing.places[None]}
        with self._attending(prefix, packing), self._recomputing(prefix, packing):
            return self.model(input_ids=ids, past_key_values=cache, use_cache=True, **positions)

    @contextlib.contextmanager
    def _attending(self, prefix: KeyValues, packing: Packing | None) -> Iterator[None]:
        """While active, the model's attention looks at a prefix that all rows share."""
        with self.lock, active_prefix(prefix, packing), AttentionSwitch(self.model, ROUTE):
            yield

    def _recomputing(self, prefix: KeyValues, packing: Packing | None) -> Any:
        if not (self.recompute and torch.is_grad_enabled()):
            return contextlib.nullcontext()
        return recomputed(self.model, lambda: self._attending(prefix, packing))

    def _cache_forward(self, prefix: KeyValues, ids: Tensor) -> Any:
        B, S = ids.shape
        P = prefix[0][0].shape[1]
        mask = torch.ones(B, P + S, dtype=torch.long, device=ids.device)
        return self.model(
            input_ids=ids,
            attention_mask=mask,
            past_key_values=self.filled_cache(prefix, B),
            use_cache=True,
        )

    def filled_cache(self, prefix: KeyValues, batch: int) -> DynamicCache:
        """A cache whose every row begins with the prefix; layers keep all positions, windows are
        the mask's business.
        """
        cache = DynamicCache()
        dtype = torch.bfloat16 if self.precision == "bf16" else self.model.dtype
        for index, (key, value) in enumerate(prefix):
            cache.update(
                key.to(dtype).expand(batch, -1, -1, -1),
                value.to(dtype).expand(batch, -1, -1, -1),
                index,
            )
        return cache

    @torch.no_grad()
    def key_values(
        self, ids: Sequence[int], *, behind: KeyValues = ()
    ) -> list[tuple[Tensor, Tensor]]:
        """The base's own keys and values over a text, fp32 [H, len(ids), D] per layer, as they lie
        in its cache.

        With a prefix that the text stands `behind`: that prefix and the text's, [H, P + len(ids),
        D].
        """
        return self.key_values_of(self.embeddings(ids), behind=behind)

    def embeddings(self, ids: Sequence[int]) -> Tensor:
        """Input embeddings [len(ids), width] of tokens, as the model would look them up."""
        with torch.no_grad():
            found: Tensor = self.model.get_input_embeddings()(
                torch.tensor(list(ids), device=self.device)
            )
        return found.float()

    def key_values_of(
        self, embeddings: Tensor, *, behind: KeyValues = ()
    ) -> list[tuple[Tensor, Tensor]]:
        """`key_values` over input embeddings [S, width]; differentiable in them."""
        cache: Any = self.filled_cache(behind, 1)
        with (
            self.calling(),
            RowSelection(self.model, torch.zeros(1, dtype=torch.long, device=embeddings.device)),
        ):
            self.model(inputs_embeds=embeddings[None], past_key_values=cache, use_cache=True)
        return [(layer.keys[0].float(), layer.values[0].float()) for layer in cache.layers]

    @contextlib.contextmanager
    def calling(self) -> Iterator[None]:
        """The context in which the model is called: by one thread at a time, in its precision."""
        in_bf16 = self.precision == "bf16"
        with self.lock, torch.autocast(self.device.type, torch.bfloat16, enabled=in_bf16):
            yield

    def fingerprint(self) -> str:
        """A checksum of all weights and buffers in memory, to show that training left them as they
        were.
        """
        total = 0
        for name, tensor in sorted(self.model.state_dict().items()):
            total = (total * 1_000_003 + sum(name.encode())) % (1 << 61)
            for raw in tensor.detach().contiguous().flatten().view(torch.uint8).split(1 << 22):
                places = torch.arange(1, raw.numel() + 1, device=raw.device) % 65_521
                total = (total * 1_000_003 + int((raw.to(torch.int64) * places).sum())) % (1 << 61)
        return f"{total:016x}"
