"""What a graph bears, found by trying: an empty past, rows padded on the left, several tokens
behind a past.

No name tells these, and exporters differ: a graph without position ids may count positions by its
mask (then rows of different lengths can share a run) or by the length of its past (then they
cannot); a merged graph may have been traced for single tokens. T columns of past, S new tokens, V
vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeprefix.export.adopt.signature import Signature
from edgeprefix.export.windows import fits
from edgeprefix.runtime.contracts.manifest import LayerShape
from edgeprefix.runtime.contracts.past_graph import (
    BRANCH,
    IN_PLACE,
    KEPT_LOGITS,
    MASK,
    POSITIONS,
    PastGraph,
)
from edgeprefix.runtime.decoding.quiet_ort import ort
from edgeprefix.runtime.decoding.session import CPU, session_options
from edgeprefix.runtime.errors import ExportError

Array = npt.NDArray[Any]
States = list[Array]

_PAST_LENGTH, _TOKENS, _PADDING = 9, 4, 37
# Spread of the difference over the spread of the logits, up to which two ways of running a token
# count as one. Graphs of 8 bits may quantise activations for the whole run (MatMulInteger), so that
# tokens fed together are rounded otherwise than alone.
_SAME = 1e-3
_FED_TOGETHER = {"fp32": 1e-3, "fp16": 1e-2, "int4": 1e-2, "int8": 0.1}
_TYPES = {
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(bool)": np.bool_,
    "tensor(float)": np.float32,
}


def rehearse(
    path: Path, signature: Signature, layers: Sequence[LayerShape], *, exporter: str, precision: str
) -> PastGraph:
    """Runs the graph a few times on random pasts.

    Raises ExportError when it does not load, cannot start from nothing, or does not give back the
    whole past.
    """
    trial = _Trial(path, signature, layers)
    trial.require_empty_past()
    windows = [layer.window + 3 for layer in layers if layer.window is not None]
    passed = [length for length in windows if fits(layers, length)]
    trial.require_growth(max([_PAST_LENGTH, *passed]))
    return PastGraph(
        exporter=exporter,
        cache=signature.cache,
        inputs=signature.inputs,
        mixed=signature.cache == IN_PLACE
        or (MASK in signature.inputs and trial.padding_noise() < _SAME),
        many=trial.chunk_noise() < _FED_TOGETHER[precision],
    )


class _Trial:
    def __init__(self, path: Path, signature: Signature, layers: Sequence[LayerShape]) -> None:
        self._path, self._layers, self._dtype = path, layers, np.dtype(signature.cache_dtype)
        self._names = [
            f"{layer}.{kind}" for layer in range(len(layers)) for kind in ("key", "value")
        ]
        self._session = _opened(path)
        self._inputs = {node.name: node for node in self._session.get_inputs()}
        self._generator = np.random.default_rng(0)
        self._text = self._generator.integers(2, min(signature.vocabulary or 256, 256), 16)

    def require_empty_past(self) -> None:
        """A text without a prefix begins with no past at all."""
        try:
            self._run(self._text[:5], self._states(0))
        except Exception as error:  # onnxruntime's exceptions share no base class but Exception
            raise ExportError(
                f"{self._path} cannot start from an empty past ({_first_line(error)}), so a text "
                "without a prefix cannot run; "
                "export it again with a current Optimum"
            ) from error

    def require_growth(self, length: int) -> None:
        """What comes out must be past and new tokens, also behind a window."""
        _, presents = self._run(self._text[:1], self._states(length))
        got = presents[0].shape[2]
        if got != length + 1:
            raise ExportError(
                f"{self._path} gives back {got} positions for a past of {length} and one token: a "
                "cache that slides or has a "
                "fixed size, in which a prefix cannot stay"
            )

    def padding_noise(self) -> float:
        """How far a row's logits move when its past is padded on the left and masked."""
        past = self._states(_PAST_LENGTH)
        return _noise(
            self._run(self._text[:1], past, padding=_PADDING)[0], self._run(self._text[:1], past)[0]
        )

    def chunk_noise(self) -> float:
        """How far the last logits are apart when tokens behind a past are fed at once and one by
        one.
        """
        past = self._states(_PAST_LENGTH)
        at_once, _ = self._run(self._text[:_TOKENS], past)
        for token in self._text[:_TOKENS]:
            one_by_one, past = self._run(np.array([token]), past)
        return _noise(at_once, one_by_one)

    def _states(self, length: int) -> States:
        """A random past [1, H, length, D] for each name."""
        shapes = [
            (1, layer.kv_heads, length, layer.head_size) for layer in self._layers for _ in range(2)
        ]
        return [self._generator.standard_normal(shape).astype(self._dtype) for shape in shapes]

    def _run(self, tokens: Array, past: States, *, padding: int = 0) -> tuple[Array, States]:
        """Logits [V] of the last token, and the presents."""
        S, T = len(tokens), past[0].shape[2]
        small: dict[str, Any] = {
            "input_ids": tokens[None],
            MASK: [[0] * padding + [1] * (T + S)],
            POSITIONS: np.arange(T, T + S)[None],
            BRANCH: [T > 0],
            KEPT_LOGITS: S,
        }
        feeds = {
            name: self._typed(name, value) for name, value in small.items() if name in self._inputs
        }
        widths = ((0, 0), (0, 0), (padding, 0), (0, 0))
        feeds |= {
            f"past_key_values.{name}": np.pad(state, widths)
            for name, state in zip(self._names, past, strict=True)
        }
        logits, *presents = self._session.run(
            ["logits", *(f"present.{name}" for name in self._names)], feeds
        )
        return logits[0, -1].astype(np.float64), presents

    def _typed(self, name: str, value: Any) -> Array:
        node = self._inputs[name]
        if node.type not in _TYPES:
            raise ExportError(f"{self._path}: {name} is {node.type}, which edgeprefix cannot give")
        array: Array = np.asarray(value, _TYPES[node.type])
        return array.reshape(1) if len(node.shape) == 1 and array.ndim == 0 else array


def _opened(path: Path) -> ort.InferenceSession:
    try:
        return ort.InferenceSession(str(path), session_options(), providers=[CPU])
    except Exception as error:  # as above
        raise ExportError(
            f"{path} does not load in ONNX Runtime {ort.__version__} on this CPU: "
            f"{_first_line(error)}"
        ) from error


def _noise(got: Array, wanted: Array) -> float:
    """Spread of the difference over the spread of the logits; not a number counts as infinite."""
    noise = float(np.std(got - wanted) / max(float(np.std(wanted)), 1e-30))
    return noise if np.isfinite(noise) else float("inf")


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
