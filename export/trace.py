"""From a torch model to the decoder graph of docs/bundle.md, still as torch wrote it; `passes` make
it lean.

Inputs `input_ids [B,S]`, `total_lengths [B]`, `logit_rows [N]`, `past_key_values.{i}.key|value
[B,H,C,D]`; outputs `logits [N,V]` and `present.{i}.key|value`, which the runtime binds to the
memory of the past. The model's own forward is traced; its attention becomes one
com.microsoft::GroupQueryAttention node a layer. B batch, S new tokens, C cache capacity, H
key/value heads, D head size, V vocabulary, N logit rows.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import onnx_ir as ir
import onnxscript.optimizer
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from edgeprefix.base.mapped import give_back
from edgeprefix.base.refusals import refusal
from edgeprefix.export.calls import AttentionCall
from edgeprefix.export.interception import intercepted
from edgeprefix.export.rotary import RotaryPlan, RotaryTable, rotation_bypassed
from edgeprefix.runtime.contracts.manifest import LayerShape
from edgeprefix.runtime.errors import ExportError

OPSET = 23
_LARGEST_TABLE = 1 << 18  # numbers of a rotary table that is stored as it is
_PARAMETER_PREFIX = "model."


@dataclass(frozen=True, kw_only=True)
class Layer:
    """What one attention layer asks of the cache; `index` is its entry in transformers' cache."""

    index: int
    shape: LayerShape


def survey_layers(model: PreTrainedModel) -> tuple[Layer, ...]:
    """Runs the model on a few tokens to see its attention layers, in cache order.

    Raises ExportError when its attention cannot be intercepted, or when the layers are not all
    attention layers.
    """
    seen: dict[int, LayerShape] = {}
    calls = 0

    def attend(call: AttentionCall) -> Tensor:
        nonlocal calls
        calls += 1
        H, D = call.key.shape[1], call.key.shape[3]
        if not call.shared:
            seen[call.layer] = LayerShape(kv_heads=H, head_size=D, window=call.window)
        return call.query.transpose(1, 2)

    kind = model.config.model_type
    if reason := refusal(model.config):
        raise ExportError(f"{kind} cannot be exported: {reason}")

    ids = torch.arange(5)[None]
    try:
        with torch.no_grad(), _experts_traceable(model), intercepted(model, attend) as cache:
            _forward(model, ids, ids, cache)
    except ExportError as error:
        raise ExportError(f"{kind} cannot be exported: {error}") from error
    except (
        AttributeError,
        NotImplementedError,
        TypeError,
        IndexError,
        KeyError,
        ValueError,
        RuntimeError,
    ) as error:
        raise ExportError(
            f"{kind} cannot be exported: its forward does not run with a cache of keys and values "
            f"alone ({_cause(error)})"
        ) from error
    expected = int(
        getattr(model.config.get_text_config(decoder=True), "num_hidden_layers", len(seen))
    )
    if max(len(seen), calls) < expected:
        raise ExportError(
            f"{kind} has {expected} layers, of which {len(seen)} attend through the attention "
            "interface; "
            "layers with a state of another kind (recurrent, convolution) or with an attention of "
            "their own cannot be exported"
        )
    return tuple(Layer(index=index, shape=seen[index]) for index in sorted(seen))


def trace_decoder(
    model: PreTrainedModel,
    layers: Sequence[Layer],
    plan: RotaryPlan | None,
    *,
    state: Mapping[str, Tensor] | None = None,
) -> ir.Model:
    """Traces the model into a graph. Weights stay the model's own memory, or that of `state`, until
    they are written.

    Raises ExportError when torch cannot export the model.
    """
    decoder = Decoder(model, layers, plan).eval()
    arguments, dynamic_shapes = _example(layers)
    names = [f"{index}.{kind}" for index in range(len(layers)) for kind in ("key", "value")]
    bypass = rotation_bypassed(model) if plan else contextlib.nullcontext()
    with torch.no_grad(), _quiet(), _experts_traceable(model), bypass:
        try:
            program = torch.onnx.export(
                decoder,
                arguments,
                dynamo=True,
                optimize=False,
                verbose=False,
                opset_version=OPSET,
                dynamic_shapes=dynamic_shapes,
                input_names=[
                    "input_ids",
                    "total_lengths",
                    "logit_rows",
                    *(f"past_key_values.{name}" for name in names),
                ],
                output_names=["logits", *(f"present.{name}" for name in names)],
            )
        except torch.onnx.errors.OnnxExporterError as error:
            raise ExportError(
                f"{model.config.model_type} cannot be traced by torch.onnx: {_cause(error)}"
            ) from error
    if program is None:
        raise ExportError("torch.onnx.export gave no program")
    if state is not None:
        _take_weights(program.model.graph, state)
    _simplify(program.model)
    _name_dimensions(program.model.graph)
    return program.model


class Decoder(nn.Module):
    """The graph's signature around a transformers model."""

    def __init__(
        self, model: PreTrainedModel, layers: Sequence[Layer], plan: RotaryPlan | None
    ) -> None:
        super().__init__()
        self.model = model
        self.entries = {layer.index: entry for entry, layer in enumerate(layers)}
        self.plan = plan
        for index, table in enumerate(plan.tables if plan else ()):
            if _is_computed(table):
                self.register_buffer(f"rotary_frequencies_{index}", table.frequencies)
            else:
                self.register_buffer(f"rotary_cos_{index}", table.cos)
                self.register_buffer(f"rotary_sin_{index}", table.sin)

    def forward(
        self,
        input_ids: Tensor,
        total_lengths: Tensor,
        logit_rows: Tensor,
        past: list[tuple[Tensor, Tensor]],
    ) -> tuple[Tensor, ...]:
        """input_ids [B,S], total_lengths [B], logit_rows [N], past [(B,H,C,D)] → logits [N,V],
        present of every layer.
        """
        present: dict[int, tuple[Tensor, Tensor]] = {}
        tables = self._tables()
        last = total_lengths - 1
        longest = total_lengths.amax(dim=0)
        S = input_ids.shape[1]

        def attend(call: AttentionCall) -> Tensor:
            entry = self.entries[call.layer]
            # An earlier layer's keys and values are in the cache by now; writing the same numbers
            # again changes nothing.
            memory = present[entry] if call.shared else past[entry]
            out, key, value = _attention_node(
                call, memory, last, longest, self._rotation(call.layer, tables)
            )
            present.setdefault(entry, (key, value))
            return out

        positions = (total_lengths.to(torch.int64) - S)[:, None] + torch.arange(S)[None]
        with intercepted(self.model, attend) as cache, _rows_selected(self.model, logit_rows):
            out = _forward(self.model, input_ids, positions, cache)
        return (out.logits, *(state for entry in range(len(past)) for state in present[entry]))

    def _tables(self) -> list[tuple[Tensor, Tensor, bool]]:
        """Cosines, sines and interleaving of each table: once, for all layers that read it."""
        return [
            (*self._table(index, table), table.interleaved)
            for index, table in enumerate(self.plan.tables if self.plan else ())
        ]

    def _table(self, index: int, table: RotaryTable) -> tuple[Tensor, Tensor]:
        if not _is_computed(table):
            return self.get_buffer(f"rotary_cos_{index}"), self.get_buffer(f"rotary_sin_{index}")
        positions = torch.arange(len(table.cos), dtype=torch.float32)[:, None]
        angles = positions * self.get_buffer(f"rotary_frequencies_{index}")
        cos, sin = angles.cos(), angles.sin()
        return (cos, sin) if table.factor == 1 else (cos * table.factor, sin * table.factor)

    def _rotation(
        self, layer: int, tables: list[tuple[Tensor, Tensor, bool]]
    ) -> tuple[Tensor, Tensor, bool] | None:
        index = self.plan.layers.get(layer) if self.plan else None
        return None if index is None else tables[index]


def _is_computed(table: RotaryTable) -> bool:
    """Whether the graph makes the table from its frequencies: ONNX Runtime does so once, when it
    opens the graph, and a table of 32,768 positions takes 33 MB of a file.
    """
    return table.frequencies is not None and table.cos.numel() > _LARGEST_TABLE


def _attention_node(
    call: AttentionCall,
    past: tuple[Tensor, Tensor],
    last: Tensor,
    longest: Tensor,
    rotation: tuple[Tensor, Tensor, bool] | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Emits GroupQueryAttention; `last` [B] is each row's last position, `longest` [] the longest
    row's length.
    """
    B, heads, S, D = call.query.shape
    cos, sin, interleaved = rotation or (None, None, False)
    attributes: dict[str, Any] = {
        "num_heads": heads,
        "kv_num_heads": call.key.shape[1],
        "scale": call.scale,
    }
    if call.window is not None:
        attributes["local_window_size"] = call.window
    if call.softcap is not None:
        attributes["softcap"] = call.softcap
    if rotation is not None:
        attributes |= {"do_rotary": 1} | ({"rotary_interleaved": 1} if interleaved else {})
    inputs = [_flat(call.query), _flat(call.key), _flat(call.value), *past, last, longest, cos, sin]
    bias = None if call.bias is None else _position_bias(call.bias, longest, S)
    if call.sink is not None or bias is not None:
        inputs += [None, bias] + ([] if call.sink is None else [call.sink])
    out, key, value = torch.onnx.ops.symbolic_multi_out(
        "com.microsoft::GroupQueryAttention",
        inputs,
        attributes,
        dtypes=[call.query.dtype, past[0].dtype, past[1].dtype],
        shapes=[(B, S, heads * D), past[0].shape, past[1].shape],
        version=1,
    )
    return out.view(B, S, heads, D), key, value


def _position_bias(table: Tensor, longest: Tensor, tokens: int) -> Tensor:
    """Biases of the keys' positions for the longest row, [1, heads, S, longest], relative to its
    last key.

    Softmax does not see what is added to a whole row, and small numbers are exact where it matters:
    near the query.
    """
    end = longest.to(torch.int64).reshape(1)
    known = [table[None, :, None], end, torch.tensor([3])]
    # The slice's length is data; for the trace it has that of the whole table.
    cut = torch.onnx.ops.symbolic(
        "Slice", [known[0], end - end, *known[1:]], dtype=table.dtype, shape=known[0].shape
    )
    last = table[None, :, None].index_select(3, end - 1)
    return (cut - last) + torch.zeros(1, 1, tokens, 1)


def _flat(states: Tensor) -> Tensor:
    """[B, heads, S, D] → [B, S, heads·D]."""
    B, heads, S, D = states.shape
    return states.transpose(1, 2).reshape(B, S, heads * D)


def _forward(model: PreTrainedModel, input_ids: Tensor, positions: Tensor, cache: Any) -> Any:
    options = (
        {"position_ids": positions}
        if "position_ids" in inspect.signature(model.forward).parameters
        else {}
    )
    return model(input_ids=input_ids, past_key_values=cache, use_cache=True, **options)


@contextlib.contextmanager
def _rows_selected(model: PreTrainedModel, rows: Tensor) -> Iterator[None]:
    """Only `rows` [N] of the flattened B·S reach the vocabulary projection, so logits come out as
    [N, V].
    """
    whole: Any = model
    head: nn.Module | None = whole.get_output_embeddings()
    if head is None:
        raise ExportError(f"{model.config.model_type} has no output embeddings: it gives no logits")

    def select(_: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        hidden = arguments[0]
        return (hidden.reshape(-1, hidden.shape[-1]).index_select(0, rows), *arguments[1:])

    handle = head.register_forward_pre_hook(select)
    try:
        yield
    finally:
        handle.remove()


def _example(layers: Sequence[Layer]) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Example inputs of the trace, and which of their dimensions vary."""
    B, S, C = 2, 3, 16
    past = []
    for layer in layers:
        shape = (B, layer.shape.kv_heads, C, layer.shape.head_size)
        past.append((torch.zeros(shape), torch.zeros(shape)))
    arguments = (
        torch.ones(B, S, dtype=torch.int64),
        torch.full((B,), S, dtype=torch.int32),
        torch.arange(4),
        past,
    )
    batch, tokens, capacity, rows = (
        torch.export.Dim(name) for name in ("batch", "tokens", "capacity", "rows")
    )
    cache = {0: batch, 2: capacity}
    return arguments, (
        {0: batch, 1: tokens},
        {0: batch},
        {0: rows},
        [(cache, cache) for _ in layers],
    )


def _take_weights(graph: ir.Graph, state: Mapping[str, Tensor]) -> None:
    """Lets the graph's weights be read from the checkpoint's tensors, as fp32, when they are
    written.
    """
    for name, value in graph.initializers.items():
        parameter = name.removeprefix(_PARAMETER_PREFIX)
        if parameter in state and value.const_value is not None:
            value.const_value = ir.LazyTensor(
                partial(_in_full, state, parameter, name),
                ir.DataType.FLOAT,
                ir.Shape(value.const_value.shape.numpy()),
                name=name,
            )


def _in_full(state: Mapping[str, Tensor], parameter: str, name: str) -> ir.Tensor[Any]:
    tensor = state[parameter]
    full = ir.Tensor(tensor.detach().float().numpy(), name=name)
    if tensor.dtype != torch.float32:  # else these are the very pages
        give_back(tensor)
    return full


def _simplify(model: ir.Model) -> None:
    """Folds constants and shapes. Matrices are hidden meanwhile, so that none is copied or stored
    twice.
    """
    graph = model.graph
    hidden = {
        name: (value, value.const_value)
        for name, value in graph.initializers.items()
        if name.startswith(_PARAMETER_PREFIX)
        and value.const_value is not None
        and len(value.const_value.shape) > 1
    }
    for name, (value, _) in hidden.items():
        del graph.initializers[name]
        value.const_value = None
        graph.inputs.append(value)
    onnxscript.optimizer.optimize_ir(model)
    used = [value for value in graph.inputs if value.name in hidden]
    for value in used:
        graph.inputs.remove(value)
        value.const_value = hidden[str(value.name)][1]
        graph.register_initializer(value)


def _name_dimensions(graph: ir.Graph) -> None:
    names: dict[str, list[str | None]] = {
        "input_ids": ["batch", "tokens"],
        "total_lengths": ["batch"],
        "logit_rows": ["rows"],
    }
    for value in (*graph.inputs, *graph.outputs):
        pattern = names.get(str(value.name), ["batch", None, "capacity", None])
        if value.name == "logits":
            pattern = ["rows", None]
        if value.shape is not None:
            value.shape = ir.Shape(
                [name or size for name, size in zip(pattern, value.shape, strict=True)]
            )


@contextlib.contextmanager
def _experts_traceable(model: PreTrainedModel) -> Iterator[None]:
    """Mixture-of-experts layers compute all tokens' experts as batched matrix products: no loop
    over the data.
    """
    if getattr(model.config, "_experts_implementation", None) is None:
        yield
        return
    previous = model.config._experts_implementation
    model.set_experts_implementation("batched_mm")
    try:
        yield
    finally:
        model.set_experts_implementation(previous)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """torch's exporter reports its own progress and habits; none of it is the user's business."""
    loggers = [
        logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")
    ]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        # It prints whole graphs there
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _cause(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip() or type(error).__name__).splitlines()[0]
