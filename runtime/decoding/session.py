"""Opening a bundle's graph with ONNX Runtime: telemetry off, threads, providers, and a check that
graph and manifest agree.

The session options are those of benchmarks/engine_session.py's measurement; see docs/engine.md.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeprefix.runtime.contracts.cache_scales import LayerScales, load_scales
from edgeprefix.runtime.contracts.manifest import GRAPH_FILE, LayerShape, Manifest
from edgeprefix.runtime.decoding.huge_pages import new_memory_in_huge_pages
from edgeprefix.runtime.decoding.machine import physical_cores
from edgeprefix.runtime.decoding.quiet_ort import MissingKernelError, ort
from edgeprefix.runtime.errors import BundleError, ProviderError

logger = logging.getLogger(__name__)

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
Provider = str | tuple[str, Mapping[str, Any]]

FLOATS: dict[str, np.dtype[Any]] = {
    "tensor(float)": np.dtype(np.float32),
    "tensor(float16)": np.dtype(np.float16),
}
"""ONNX Runtime's names of the dtypes that caches and logits may have."""
_CACHES = FLOATS | {"tensor(int8)": np.dtype(np.int8)}
_INT8_CACHE_SINCE = (1, 27)
_QUIET = 3  # ONNX Runtime's log level "error"; what it refuses arrives as an exception


@dataclass(frozen=True, kw_only=True)
class Graph:
    """An open decoder graph: each layer's cache shape, V, and the device of its cache."""

    session: ort.InferenceSession
    layers: tuple[LayerShape, ...]
    vocabulary: int
    cache_dtype: np.dtype[Any]
    logits_dtype: np.dtype[Any]
    device: str
    providers: tuple[Provider, ...] = (CPU,)
    scales: tuple[LayerScales, ...] | None = None
    """Of an int8 cache."""

    @property
    def on_cpu(self) -> bool:
        """Whether the cache is in main memory."""
        return self.device == "cpu"

    @property
    def keeps_bindings(self) -> bool:
        """Whether the graph goes on reading memory that was bound once.

        A provider with a device of its own, but its cache in main memory, copies at the moment of
        binding.
        """
        return not self.on_cpu or all(_name(provider) == CPU for provider in self.providers)


def open_graph(
    bundle: str | Path,
    manifest: Manifest,
    *,
    threads: int | None = None,
    providers: Sequence[Provider] | None = None,
    config: Mapping[str, str] | None = None,
) -> Graph:
    """Opens the graph of `bundle`. `threads` defaults to the physical cores, `config` are settings
    of ONNX Runtime's.

    Raises BundleError when the graph cannot be read or differs from the manifest, ProviderError
    when a provider is not installed, did not start, or lacks a kernel.
    """
    scales = None
    if manifest.cache_dtype == "int8":
        _require_int8_cache(providers)
        scales = load_scales(bundle, manifest.layers)
    session, chosen = open_session(bundle, session_options(threads, config), providers)
    _require_half_on_cuda(manifest, chosen)
    graph = _checked_graph(session, manifest, str(Path(bundle) / GRAPH_FILE))
    return dataclasses.replace(graph, providers=chosen, scales=scales)


def _require_int8_cache(providers: Sequence[Provider] | None) -> None:
    """Raises ProviderError where no kernel takes an int8 cache."""
    version = tuple(int(part) for part in ort.__version__.split(".")[:2])
    if version < _INT8_CACHE_SINCE:
        raise ProviderError(
            f"this bundle has an int8 cache, which onnxruntime {ort.__version__} cannot read; "
            "install onnxruntime 1.27 or "
            "newer, or export the bundle without --cache int8"
        )
    if any(_name(provider) != CPU for provider in providers or ()):
        raise ProviderError(
            "this bundle has an int8 cache, which runs on the CPU; export it without --cache int8"
        )


def open_session(
    bundle: str | Path, options: ort.SessionOptions, providers: Sequence[Provider] | None
) -> tuple[ort.InferenceSession, tuple[Provider, ...]]:
    """The session over a bundle's graph, and its providers. Raises BundleError, ProviderError."""
    chosen = _known_providers(providers)
    path = Path(bundle) / GRAPH_FILE
    if not path.is_file():
        raise BundleError(f"{path} is missing; export the bundle again")
    session = _open_session(path, options, chosen)
    _require_started(session, chosen)
    return session, tuple(chosen)


def session_options(
    threads: int | None = None, config: Mapping[str, str] | None = None
) -> ort.SessionOptions:
    """The engine's session options: one pool of compute threads, no parallel branches, quiet."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = physical_cores() if threads is None else threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _QUIET
    for name, value in (config or {}).items():
        options.add_session_config_entry(name, value)
    return options


def _name(provider: Provider) -> str:
    return provider if isinstance(provider, str) else provider[0]


def _require_half_on_cuda(manifest: Manifest, providers: Sequence[Provider]) -> None:
    """CUDA's attention takes fp16 only; ONNX Runtime would silently put another on the CPU."""
    if any(_name(provider) == CUDA for provider in providers) and manifest.cache_dtype != "float16":
        raise ProviderError(
            f"{CUDA} has no attention kernel for a {manifest.cache_dtype} cache; export the "
            "bundle with --precision fp16"
        )


def _known_providers(providers: Sequence[Provider] | None) -> list[Provider]:
    chosen: list[Provider] = list(providers) if providers else [CPU]
    there = ort.get_available_providers()
    for provider in chosen:
        name = _name(provider)
        if name not in there:
            hint = (
                "pip install onnxruntime-gpu"
                if name == CUDA
                else "install the onnxruntime build that has it"
            )
            raise ProviderError(
                f"provider {name!r} is not installed; this onnxruntime has {', '.join(there)}; "
                f"{hint}"
            )
    return chosen


def _open_session(
    path: Path, options: ort.SessionOptions, providers: list[Provider]
) -> ort.InferenceSession:
    try:
        with new_memory_in_huge_pages():
            return ort.InferenceSession(str(path), options, providers=providers)
    except MissingKernelError as error:
        raise ProviderError(
            f"{path}: a provider of {providers} lacks a kernel that the graph needs: "
            f"{_one_line(error)}"
        ) from error
    except Exception as error:  # onnxruntime's exceptions share no base class but Exception
        text = _one_line(error)
        if "escapes model directory" in text:
            raise BundleError(
                f"{path} keeps its weights behind a link that leads out of the bundle, which ONNX "
                f"Runtime refuses ({text}); put the file itself there, or link the graph and its "
                "weights to files of one folder"
            ) from error
        raise BundleError(f"{path} cannot be opened: {text}; export the bundle again") from error


def _one_line(error: Exception) -> str:
    return str(error).strip().replace("\n", " ")


def _require_started(session: ort.InferenceSession, providers: list[Provider]) -> None:
    """When a provider cannot start, ONNX Runtime goes on with the CPU; we say so instead."""
    started = session.get_providers()
    first = _name(providers[0])
    if first not in started:
        raise ProviderError(
            f"provider {first!r} did not start (driver or libraries missing?); running are "
            f"{', '.join(started)}"
        )


def _checked_graph(session: ort.InferenceSession, manifest: Manifest, source: str) -> Graph:
    inputs = {node.name: node for node in session.get_inputs()}
    outputs = {node.name: node for node in session.get_outputs()}
    needed = {"input_ids", "total_lengths", "logit_rows"} | {
        name for name, _ in _cache_names(len(manifest.layers))
    }
    missing = sorted(needed - inputs.keys())
    if missing or "logits" not in outputs:
        raise BundleError(
            f"{source} is not an edgeprefix decoder: it has no input "
            f"{', '.join(missing) or 'or output logits'}"
        )
    dtype = _CACHES[inputs["past_key_values.0.key"].type]
    for index, layer in enumerate(manifest.layers):
        _, heads, _, size = inputs[f"past_key_values.{index}.key"].shape
        if (heads, size) != (layer.kv_heads, layer.head_size) or dtype.name != manifest.cache_dtype:
            raise BundleError(
                f"{source}, layer {index}: cache of {heads} heads, size {size}, {dtype.name}; the "
                "manifest says "
                f"{layer.kv_heads}, {layer.head_size}, {manifest.cache_dtype}; export the bundle "
                "again"
            )
    device = "cpu" if session.get_providers()[0] == CPU else _device_of(session)
    return Graph(
        session=session,
        layers=manifest.layers,
        vocabulary=manifest.vocabulary,
        cache_dtype=dtype,
        logits_dtype=FLOATS[outputs["logits"].type],
        device=device,
    )


def _device_of(session: ort.InferenceSession) -> str:
    """Only CUDA keeps its cache on the device; all others accept one in main memory."""
    return "cuda" if session.get_providers()[0] == CUDA else "cpu"


def _cache_names(layers: int) -> list[tuple[str, str]]:
    """The (past, present) names of every cache tensor, layer by layer, key before value."""
    return [
        (f"past_key_values.{index}.{kind}", f"present.{index}.{kind}")
        for index in range(layers)
        for kind in ("key", "value")
    ]
