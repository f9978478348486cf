"""The other side of the llama.cpp tests, run by an environment that has llama_cpp, gguf, numpy and
safetensors.

    python llama_cpp_side.py CHECKPOINT WORK_FOLDER < request.json > answer.json

Writes the checkpoint as GGUF, as llama.cpp's own converter does, then answers each request: greedy
tokens behind a state file (or none). {"requests": [{"state": FILE|null, "cache": "fp32"|"fp16",
"prompt": [ids], "count": N}]}
"""

from __future__ import annotations

import ctypes
import json
import sys
from pathlib import Path

import gguf
import llama_cpp
import numpy as np
from llama3_factors import llama3_factors
from safetensors.numpy import load_file

LLAMA_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
GPT2_NAMES = {
    "ln_1": "attn_norm",
    "ln_2": "ffn_norm",
    "attn.c_attn": "attn_qkv",
    "attn.c_proj": "attn_output",
    "mlp.c_fc": "ffn_up",
    "mlp.c_proj": "ffn_down",
}


def write_gguf(checkpoint: Path, out: Path) -> None:
    config = json.loads((checkpoint / "config.json").read_text())
    tensors = load_file(checkpoint / "model.safetensors")
    writer = gguf.GGUFWriter(str(out), config["model_type"])
    (gpt2 if config["model_type"] == "gpt2" else llama)(writer, config, tensors)
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("no_vocab")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def llama(writer: gguf.GGUFWriter, config: dict, tensors: dict[str, np.ndarray]) -> None:
    """Llama and Qwen2; Llama's queries and keys are permuted to neighbouring pairs, as
    convert_hf_to_gguf.py does.
    """
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    size = config.get("head_dim") or config["hidden_size"] // heads
    rope = config["rope_parameters"]
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_dimension_count(size)
    writer.add_rope_freq_base(rope["rope_theta"])
    if rope["rope_type"] == "llama3":
        writer.add_tensor("rope_freqs.weight", llama3_factors(rope, size))
    writer.add_tensor("token_embd.weight", tensors["model.embed_tokens.weight"])
    writer.add_tensor("output_norm.weight", tensors["model.norm.weight"])
    for layer in range(config["num_hidden_layers"]):
        for name, other in LLAMA_NAMES.items():
            for part in ("weight", "bias"):
                array = tensors.get(f"model.layers.{layer}.{name}.{part}")
                if array is None:
                    continue
                if config["model_type"] == "llama" and other in ("attn_q", "attn_k"):
                    array = permuted(array, heads if other == "attn_q" else kv_heads)
                writer.add_tensor(f"blk.{layer}.{other}.{part}", array)


def permuted(weight: np.ndarray, heads: int) -> np.ndarray:
    return np.ascontiguousarray(
        weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:])
        .swapaxes(1, 2)
        .reshape(weight.shape)
    )


def gpt2(writer: gguf.GGUFWriter, config: dict, tensors: dict[str, np.ndarray]) -> None:
    writer.add_context_length(config["n_positions"])
    writer.add_embedding_length(config["n_embd"])
    writer.add_block_count(config["n_layer"])
    writer.add_feed_forward_length(4 * config["n_embd"])
    writer.add_head_count(config["n_head"])
    writer.add_layer_norm_eps(config["layer_norm_epsilon"])
    writer.add_tensor("token_embd.weight", tensors["transformer.wte.weight"])
    writer.add_tensor("position_embd.weight", tensors["transformer.wpe.weight"])
    for part in ("weight", "bias"):
        writer.add_tensor(f"output_norm.{part}", tensors[f"transformer.ln_f.{part}"])
        for layer in range(config["n_layer"]):
            for name, other in GPT2_NAMES.items():
                array = tensors[f"transformer.h.{layer}.{name}.{part}"]
                # Conv1D keeps it transposed
                writer.add_tensor(f"blk.{layer}.{other}.{part}", np.ascontiguousarray(array.T))


def greedy(model: object, vocabulary: int, request: dict) -> list[int]:
    parameters = llama_cpp.llama_context_default_params()
    parameters.n_ctx, parameters.n_batch, parameters.n_threads = 256, 256, 1
    if request["cache"] == "fp32":
        parameters.type_k = parameters.type_v = 0
    context = llama_cpp.llama_init_from_model(model, parameters)
    if request["state"]:
        tokens, count = (llama_cpp.llama_token * 256)(), ctypes.c_size_t()
        loaded = llama_cpp.llama_state_seq_load_file(
            context, request["state"].encode(), 0, tokens, 256, ctypes.byref(count)
        )
        if not loaded:
            raise SystemExit(f"llama.cpp does not take {request['state']}")
    found: list[int] = []
    new = request["prompt"]
    for _ in range(request["count"]):
        batch = llama_cpp.llama_batch_get_one((llama_cpp.llama_token * len(new))(*new), len(new))
        if llama_cpp.llama_decode(context, batch):
            raise SystemExit("llama_decode failed")
        logits = np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(context, -1), (vocabulary,))
        new = [int(logits.argmax())]
        found += new
    llama_cpp.llama_free(context)
    return found


def main() -> None:
    checkpoint, folder = map(Path, sys.argv[1:])
    request = json.load(sys.stdin)
    write_gguf(checkpoint, folder / "model.gguf")
    llama_cpp.llama_backend_init()
    model = llama_cpp.llama_model_load_from_file(
        str(folder / "model.gguf").encode(), llama_cpp.llama_model_default_params()
    )
    vocabulary = json.loads((checkpoint / "config.json").read_text())["vocab_size"]
    answer = [greedy(model, vocabulary, each) for each in request["requests"]]
    json.dump({"version": llama_cpp.__version__, "tokens": answer}, sys.stdout)


if __name__ == "__main__":
    main()
