"""The frozen base: loaded, never changed, asked only for the logits that a loss needs.

`load_base` takes a local checkpoint folder or a hub id. The working copy keeps its matrix weights
in bf16 where the machine multiplies bf16 quickly (AMX, GPUs): the forward pass is then several
times faster, while the residual stream, the norms and the prefix stay fp32. Weights that a
checkpoint keeps in bf16 lose nothing by that.
"""

from __future__ import annotations

import contextlib
import logging
import math
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.cache_utils import DynamicCache
from transformers.pytorch_utils import Conv1D
from transformers.utils import logging as transformers_logging

from edgeprefix.base.checkpoint import find_checkpoint
from edgeprefix.base.identity import checkpoint_identity
from edgeprefix.runtime.contracts.identity import BaseIdentity
from edgeprefix.runtime.contracts.tokenizer import TextTokenizer, end_ids_of
from edgeprefix.runtime.errors import CheckpointError, TrainingError
from edgeprefix.train.attention import ROUTE, KeyValues, SharedPrefixCache, active_prefix
from edgeprefix.train.devices import choose_device
from edgeprefix.train.packing import Packing
from edgeprefix.train.recompute import decoder_layers, recomputed
from edgeprefix.train.rounding import WEIGHTS, round_weights

logger = logging.getLogger(__name__)

PRECISIONS = ("auto", "fp32", "bf16")

# Tokens: models make a mask over all pairs of them, of which attention needs the longest row's
# alone
_MOST_PACKED = 4096
# "auto" takes bf16 when a product of matrices takes less than this share of its time in fp32
_BF16_SHARE = 0.8


# Two routes add up the same numbers in another order. What that may make of the difference that a
# tenth of the prefix makes: 0.05 to 0.16 was met in bf16, 1e-5 in fp32.
_ROUTE_NOISE = {"bf16": 0.3, "fp32": 0.01}


class LayerShape(NamedTuple):
    """What the prefix of one layer looks like: [kv_heads, P, key_size] and [kv_heads, P,
    value_size].
    """

    kv_heads: int
    key_size: int
    value_size: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Base:
    """A frozen causal language model with its tokenizer and identity."""

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
        """Positions that the base was made for: prefix, prompt and target must fit. 2**31 where it
        states no limit.
        """
        config = self.model.config.get_text_config()
        return int(getattr(config, "max_position_embeddings", None) or 2**31)

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
        with self.calling(), _RowSelection(self.model, rows):
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
        with self.lock, active_prefix(prefix, packing), _Attention(self.model, ROUTE):
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
            _RowSelection(self.model, torch.zeros(1, dtype=torch.long, device=embeddings.device)),
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


def load_base(
    source: str | Path,
    *,
    precision: str = "auto",
    device: str = "auto",
    weights: str = "checkpoint",
    recompute: bool = False,
) -> Base:
    """Loads a base from a local folder or the hub, frozen.

    `weights` "int8" or "int4" rounds them as a bundle of that precision holds them. `precision`
    "auto" takes bf16 where the device multiplies it quickly, else fp32; `device` "auto" takes a GPU
    if there is one. `recompute` keeps less in memory while training and takes longer. Raises
    CheckpointError when the folder or id cannot be loaded, TrainingError when the model cannot take
    a prefix.
    """
    if weights not in WEIGHTS:
        raise TrainingError(f"weights {weights!r} is unknown; choose one of {', '.join(WEIGHTS)}")
    if precision not in PRECISIONS:
        raise TrainingError(
            f"precision {precision!r} is unknown; choose one of {', '.join(PRECISIONS)}"
        )
    target = choose_device(device)
    folder, name = find_checkpoint(source)
    if precision == "auto":
        precision = "bf16" if _has_fast_bf16(target) else "fp32"
    with _quiet_transformers():
        model = _load_model(folder)
    model.requires_grad_(False)
    model.eval()
    if weights != "checkpoint":
        round_weights(model, weights)
    parameters = sum(weight.numel() for weight in model.parameters())
    model.to(target)
    if precision == "bf16":
        _matrices_to_bf16(model)
    base = Base(
        model=model,
        tokenizer=_load_tokenizer(folder, model),
        identity=checkpoint_identity(folder, name=name),
        layers=_layer_shapes(model, precision),
        precision=precision,
        route="cache",
        source=str(source),
        parameters=parameters,
        weights=weights,
        recompute=recompute,
    )
    base = _with_best_route(base)
    if recompute and not (base.shares_prefix and decoder_layers(model)):
        raise TrainingError(
            f"{type(model).__name__} cannot compute its layers again with a prefix in front; "
            "leave out --recompute, and lower "
            "--batch-size or --max-tokens to save memory"
        )
    return base


def _load_model(folder: Path) -> Any:
    try:
        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise CheckpointError(
            f"{folder} cannot be loaded as a causal language model: {reason}"
        ) from error


@contextlib.contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Keeps transformers' own progress bar off the terminal, where ours stands."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def _load_tokenizer(folder: Path, model: Any) -> TextTokenizer:
    """tokenizer.json as it stands, which is what the exporter ships; older vocabulary files are
    converted.
    """
    file = folder / "tokenizer.json"
    try:
        loaded = AutoTokenizer.from_pretrained(folder)
        backend = Tokenizer.from_file(str(file)) if file.is_file() else loaded.backend_tokenizer
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise CheckpointError(
            f"{folder} has no tokenizer that can be read as tokenizer.json: {error}"
        ) from error
    ends = end_ids_of(model.generation_config, model.config.get_text_config(decoder=True), loaded)
    return TextTokenizer(backend, end_ids=ends)


def _has_fast_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    able = device.type == "cpu" and any(getattr(torch.cpu, name, bool)() for name in probes)
    return able and _bf16_pays()


def _bf16_pays() -> bool:
    """Times products of matrices, in turns, the best of many. What a processor says of itself is
    not enough: one that has bf16 instructions was slower with them (docs/training.md, "How it is
    fast").
    """
    matrices = {
        dtype: torch.ones(512, 512, dtype=dtype) for dtype in (torch.float32, torch.bfloat16)
    }
    best = dict.fromkeys(matrices, math.inf)
    for _ in range(30):
        for dtype, matrix in matrices.items():
            began = time.perf_counter()
            torch.mm(matrix, matrix)
            best[dtype] = min(best[dtype], time.perf_counter() - began)
    return best[torch.bfloat16] < _BF16_SHARE * best[torch.float32]


def _matrices_to_bf16(model: nn.Module) -> None:
    """Rounds matrix weights once; autocast would do it anew in every step, since frozen weights are
    not in its cache.
    """
    for module in model.modules():
        if isinstance(module, nn.Linear | Conv1D):
            module.weight = nn.Parameter(module.weight.to(torch.bfloat16), requires_grad=False)


@torch.no_grad()
def _layer_shapes(model: Any, precision: str) -> tuple[LayerShape, ...]:
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


def _with_best_route(base: Base) -> Base:
    """The fastest route by which the model gives the logits that it gives over a filled cache."""
    # Packing was measured on CPUs only; a GPU reads groups of like length, padded.
    routes = ("packed", "shared") if base.device.type == "cpu" else ("shared",)
    for route in routes:
        candidate = replace(base, route=route)
        if _agrees(candidate, base):
            return candidate
    return base


@torch.no_grad()
def _agrees(candidate: Base, base: Base) -> bool:
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


class _RowSelection:
    """While active, only `rows` of the flattened hidden states [B·S] reach the model's vocabulary
    projection.

    What models do to logits after it (soft caps, scales) works element by element, so the result is
    exact.
    """

    def __init__(self, model: Any, rows: Tensor | None) -> None:
        self._head = model.get_output_embeddings()
        self._rows: Any = rows
        self._handle: Any = None

    def __enter__(self) -> None:
        if self._rows is not None:
            self._handle = self._head.register_forward_pre_hook(self._select)

    def __exit__(self, *_: object) -> None:
        if self._handle is not None:
            self._handle.remove()

    def _select(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        hidden = inputs[0]
        return (hidden.reshape(1, -1, hidden.shape[-1]).index_select(1, self._rows), *inputs[1:])


class _Attention:
    """While active, the model uses another attention implementation."""

    def __init__(self, model: Any, name: str) -> None:
        self._model, self._name = model, name
        self._before = model.config._attn_implementation

    def __enter__(self) -> None:
        if self._before != self._name:
            self._model.set_attn_implementation(self._name)

    def __exit__(self, *_: object) -> None:
        if self._before != self._name:
            self._model.set_attn_implementation(self._before)


def read_config(source: str | Path) -> Any:
    """The configuration of a base without its weights."""
    return AutoConfig.from_pretrained(find_checkpoint(source).folder)
