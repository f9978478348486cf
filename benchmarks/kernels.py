"""How fast are ONNX Runtime's matrix products in each weight format?

    python benchmarks/kernels.py --json benchmarks/results/kernels-DATE.json

One projection [M, K] × [K, N] at a time, with as many copies of the weight as fill 100 MB, so that
weights come from memory as they do in a decoding step. `4b128` is 4 bits in blocks of 128 with zero
points, `8b256` 8 bits without; `u8s8` is DynamicQuantizeMatMul (8 bits, one scale a column, one for
all activations), which the graph does not use since a row would depend on its company.
Microseconds, median of at least a quarter of a second, weights in huge pages.
"""

# ruff: noqa: N803  (names of dimensions)
from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import onnx_ir as ir

from edgeprefix.runtime.decoding.huge_pages import new_memory_in_huge_pages
from edgeprefix.runtime.decoding.quiet_ort import ort
from edgeprefix.runtime.decoding.session import session_options

SHAPES = {
    "GPT-2 fc": (768, 3072),
    "GPT-2 fc2": (3072, 768),
    "SmolLM2 gate/up": (576, 3072),
    "SmolLM2 down": (1536, 576),
}
FORMATS = ("4b32", "4b64", "4b128", "4b256", "8b64", "8b128", "8b256", "u8s8", "fp32")
ROWS = (1, 8, 128)
_WEIGHT_BYTES = 100e6
_SECONDS = 0.25


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--shapes", nargs="*", default=list(SHAPES), help="some of: " + ", ".join(SHAPES)
    )
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = []
    print(f"{'projection':<18}{'format':>8}" + "".join(f"{f'M={M}, µs':>12}" for M in ROWS))
    for name in options.shapes:
        for form in FORMATS:
            times = measure(form, *SHAPES[name])
            rows.append({"projection": name, "format": form, "us": times})
            print(
                f"{name:<18}{form:>8}" + "".join(f"{value:>12.1f}" for value in times.values()),
                flush=True,
            )
    result = {
        "benchmark": "kernels",
        "rows": rows,
        "load_average": list(os.getloadavg()),
        "onnxruntime": ort.__version__,
        "machine": platform.processor() or platform.machine(),
        "time": time.strftime("%Y-%m-%d %H:%M:%S"),
    }
    if options.json:
        if options.json.exists():
            sys.exit(f"{options.json} exists already: results are not overwritten")
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


def measure(form: str, K: int, N: int) -> dict[int, float]:
    """Microseconds of one projection for each number of rows."""
    bits = {"u8s8": 8, "fp32": 32}.get(form) or int(form[0])
    copies = max(2, int(_WEIGHT_BYTES * 8 / (K * N * bits)))
    with new_memory_in_huge_pages():
        session = ort.InferenceSession(
            ir.to_proto(_model(form, K, N, copies)).SerializeToString(),
            session_options(),
            providers=["CPUExecutionProvider"],
        )
    return {M: round(1e6 * _median(session, M, K) / copies, 1) for M in ROWS}


def _median(session: ort.InferenceSession, M: int, K: int) -> float:
    binding = session.io_binding()
    binding.bind_cpu_input("x", np.random.default_rng(0).standard_normal((M, K)).astype(np.float32))
    for output in session.get_outputs():
        binding.bind_output(output.name, "cpu")
    session.run_with_iobinding(binding)
    times: list[float] = []
    while len(times) < 3 or sum(times) < _SECONDS:
        started = time.perf_counter()
        session.run_with_iobinding(binding)
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def _model(form: str, K: int, N: int, copies: int) -> ir.Model:
    x = ir.Value(name="x", shape=ir.Shape(["M", K]), type=ir.TensorType(ir.DataType.FLOAT))
    nodes, weights = [], []
    for copy in range(copies):
        op, arrays, attributes = _projection(form, K, N, seed=copy)
        inputs = [
            ir.Value(name=f"{copy}.{number}", const_value=ir.Tensor(array, name=f"{copy}.{number}"))
            for number, array in enumerate(arrays)
        ]
        domain = "" if op == "MatMul" else "com.microsoft"
        node = ir.Node(domain, op, [x, *inputs], ir.convenience.convert_attributes(attributes))
        node.outputs[0].name = f"y{copy}"
        node.outputs[0].shape, node.outputs[0].type = (
            ir.Shape(["M", N]),
            ir.TensorType(ir.DataType.FLOAT),
        )
        nodes.append(node)
        weights += inputs
    outputs = [node.outputs[0] for node in nodes]
    graph = ir.Graph(
        [x],
        outputs,
        nodes=nodes,
        initializers=weights,
        opset_imports={"": 21, "com.microsoft": 1},
        name="g",
    )
    return ir.Model(graph, ir_version=10)


def _projection(
    form: str, K: int, N: int, *, seed: int
) -> tuple[str, list[np.ndarray], dict[str, int]]:
    """Operator, weights and attributes of one projection. Equal weights would be merged, so each
    has a seed of its own.
    """
    random = np.random.default_rng(seed)
    if form == "fp32":
        return "MatMul", [random.standard_normal((K, N), np.float32)], {}
    if form == "u8s8":
        weight = random.integers(-127, 128, (K, N)).astype(np.int8)
        return "DynamicQuantizeMatMul", [weight, np.full(N, 0.01, np.float32)], {}
    bits, block = int(form[0]), int(form[2:])
    blocks = -(-K // block)
    arrays = [
        random.integers(0, 256, (N, blocks, block * bits // 8), np.uint8),
        np.full((N, blocks), 0.01, np.float32),
    ]
    if bits == 4:
        arrays.append(random.integers(0, 256, (N, -(-blocks // 2)), np.uint8))
    return (
        "MatMulNBits",
        arrays,
        {"K": K, "N": N, "bits": bits, "block_size": block, "accuracy_level": 4},
    )


if __name__ == "__main__":
    main()
