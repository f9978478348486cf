"""The other side of the OpenVINO test, run by an environment that has optimum-intel.

    python openvino_side.py CHECKPOINT < request.json > answer.json

Exports the checkpoint as a stateful model, then answers each request: greedy tokens behind a state
file (or none). {"requests": [{"state": FILE|null, "prompt": [ids], "count": N}]}
"""

from __future__ import annotations

import json
import sys

import numpy as np
import openvino as ov
from optimum.intel import OVModelForCausalLM
from safetensors.numpy import load_file


def greedy(compiled: ov.CompiledModel, request: dict) -> list[int]:
    infer = compiled.create_infer_request()
    length = 0
    if request["state"]:
        tensors = load_file(request["state"])
        for state in infer.query_state():
            state.state = ov.Tensor(tensors[state.name])
        length = tensors[state.name].shape[2]
    names = {node.any_name for node in compiled.inputs}
    found: list[int] = []
    new = request["prompt"]
    for _ in range(request["count"]):
        positions = np.arange(length, length + len(new))[None]
        length += len(new)
        inputs = {
            "input_ids": np.array([new]),
            "attention_mask": np.ones((1, length), np.int64),
            "position_ids": positions,
            "beam_idx": np.zeros(1, np.int32),
        }
        infer.infer({name: array for name, array in inputs.items() if name in names})
        new = [int(infer.get_tensor("logits").data[0, -1].argmax())]
        found += new
    return found


def main() -> None:
    model = OVModelForCausalLM.from_pretrained(
        sys.argv[1], export=True, stateful=True, compile=False
    ).model
    compiled = ov.Core().compile_model(
        model, "CPU", {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32"}
    )
    answer = [greedy(compiled, request) for request in json.load(sys.stdin)["requests"]]
    json.dump({"version": ov.__version__, "tokens": answer}, sys.stdout)


if __name__ == "__main__":
    main()
