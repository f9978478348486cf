"""Opening a graph that another exporter made, and checking that it is what the manifest says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgeprefix.runtime.contracts.manifest import GRAPH_FILE, Manifest
from edgeprefix.runtime.contracts.past_graph import IN_PLACE, PastGraph
from edgeprefix.runtime.decoding.quiet_ort import ort
from edgeprefix.runtime.decoding.session import (
    CPU,
    FLOATS,
    Graph,
    Provider,
    open_session,
    session_options,
)
from edgeprefix.runtime.errors import BundleError, ProviderError


def open_past_graph(
    bundle: str | Path,
    manifest: Manifest,
    past: PastGraph,
    *,
    threads: int | None = None,
    providers: Sequence[Provider] | None = None,
    config: Mapping[str, str] | None = None,
) -> Graph:
    """Opens the graph of a bundle that `export adopt` wrote. `threads` defaults to the physical
    cores, `config` are settings of ONNX Runtime's.

    Raises BundleError when it cannot be read or differs from the manifest, ProviderError when a
    provider is not installed, did not start, or is none that the graph can work in place with.
    """
    options = session_options(threads, config)
    options.enable_mem_pattern = False  # every step has other shapes; a plan for each would be kept
    session, chosen = open_session(bundle, options, providers)
    first = session.get_providers()[0]
    if past.cache == IN_PLACE and first != CPU:
        raise ProviderError(
            f"this bundle's graph works in place, in main memory, which {first} does not; load it "
            "without providers"
        )
    inputs = {node.name: node for node in session.get_inputs()}
    outputs = {node.name: node for node in session.get_outputs()}
    _check(inputs, outputs, manifest, past, str(Path(bundle) / GRAPH_FILE))
    return Graph(
        session=session,
        layers=manifest.layers,
        vocabulary=manifest.vocabulary,
        cache_dtype=FLOATS[inputs["past_key_values.0.key"].type],
        logits_dtype=FLOATS[outputs["logits"].type],
        device="cpu",
        providers=chosen,
    )


def _check(
    inputs: dict[str, ort.NodeArg],
    outputs: dict[str, ort.NodeArg],
    manifest: Manifest,
    past: PastGraph,
    source: str,
) -> None:
    names = [(layer, kind) for layer in range(len(manifest.layers)) for kind in ("key", "value")]
    pasts = {f"past_key_values.{layer}.{kind}" for layer, kind in names}
    wanted = {"input_ids", *past.inputs} | pasts
    if (
        inputs.keys() != wanted
        or not {"logits", *(f"present.{layer}.{kind}" for layer, kind in names)} <= outputs.keys()
    ):
        differing = ", ".join(sorted(inputs.keys() ^ wanted)) or "its outputs"
        raise BundleError(
            f"{source} is not the graph of its manifest: they differ in {differing}; adopt it again"
        )
    shapes = [_cache_shape(inputs[f"past_key_values.{layer}.{kind}"]) for layer, kind in names]
    for (layer, kind), (heads, size, dtype) in zip(names, shapes, strict=True):
        shape = manifest.layers[layer]
        says = (shape.kv_heads, shape.head_size, manifest.cache_dtype)
        if (
            any(
                isinstance(got, int) and got != said
                for got, said in ((heads, says[0]), (size, says[1]))
            )
            or dtype != says[2]
        ):
            raise BundleError(
                f"{source}, layer {layer}: past {kind} of {heads} heads, size {size}, {dtype}; "
                "the manifest says "
                f"{says[0]}, {says[1]}, {says[2]}; adopt it again"
            )


def _cache_shape(node: ort.NodeArg) -> tuple[Any, Any, str]:
    """Heads, head size (names where left open) and dtype of a past [B, H, T, D]."""
    _, heads, _, size = node.shape
    return heads, size, FLOATS[node.type].name if node.type in FLOATS else str(node.type)
