"""Names that can be read and searched: `layers.3.self_attn.q_proj.weight`,
`layers.3.self_attn.q_proj.MatMul`, `Mul_12`.
"""

from __future__ import annotations

from collections import Counter

import onnx_ir as ir

_WRAPPER = "model."  # the exporter's own module around the base
_SUFFIXES = (".weight", ".bias")


class NamePass(ir.passes.InPlacePass):
    """Initializers lose the wrapper's prefix; nodes and their outputs are named after their weight,
    or numbered.

    Ensures: names are unique. Names of graph inputs and outputs stay.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Renames in place."""
        graph, used = model.graph, Counter[str]()
        for value in (*graph.inputs, *graph.outputs):
            used[str(value.name)] += 1
        for value in list(graph.initializers.values()):
            value.name = _unique(str(value.name).removeprefix(_WRAPPER), used)
            if value.const_value is not None:
                value.const_value.name = value.name
        for node in graph:
            node.name = _unique(_role(node), used)
            for index, output in enumerate(node.outputs):
                if output.name and not output.is_graph_output():
                    output.name = f"{node.name}.out" if index == 0 else f"{node.name}.out{index}"
                    output.shape = output.type = None  # the runtime infers them itself
        return ir.passes.PassResult(model, True)

    def ensures(self, model: ir.Model) -> None:
        """Names are unique."""
        names = Counter(node.name for node in model.graph)
        names.update(str(v.name) for node in model.graph for v in node.outputs if v.name)
        if double := [name for name, count in names.items() if count > 1]:
            raise ir.passes.PostconditionError(f"names are used twice: {double[:3]}")


def _role(node: ir.Node) -> str:
    for value in node.inputs:
        if (
            value is not None
            and value.is_initializer()
            and str(value.name).partition(".int")[0].endswith(_SUFFIXES)
        ):
            owner = str(value.name).partition(".int")[0].rpartition(".")[0]
            return f"{owner}.{node.op_type}"
    return node.op_type


def _unique(name: str, used: Counter[str]) -> str:
    used[name] += 1
    return name if used[name] == 1 else _unique(f"{name}_{used[name]}", used)
