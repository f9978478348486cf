"""A checkpoint becomes a GGUF file in fp32, to be quantised by llama.cpp itself
(quantise_llama.py).

llama.cpp's own converter is not on PyPI; this writes the same names and layouts with its package
`gguf`.

    python convert_llama.py CHECKPOINT FILE
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from safetensors.numpy import load_file

ARCHITECTURES = {
    "gpt2": gguf.MODEL_ARCH.GPT2,
    "llama": gguf.MODEL_ARCH.LLAMA,
    "qwen2": gguf.MODEL_ARCH.QWEN2,
}
TRANSPOSED = (".c_attn.weight", ".c_proj.weight", ".c_fc.weight")  # GPT-2 keeps [in, out]


def convert(checkpoint: Path, target: Path) -> None:
    """Writes facts, vocabulary and tensors."""
    config = json.loads((checkpoint / "config.json").read_text())
    kind = config["model_type"]
    writer = gguf.GGUFWriter(target, gguf.MODEL_ARCH_NAMES[ARCHITECTURES[kind]])
    layers = (
        _write_gpt2_facts(writer, config) if kind == "gpt2" else _write_llama_facts(writer, config)
    )
    _write_vocabulary(writer, checkpoint)
    names = gguf.get_tensor_name_map(ARCHITECTURES[kind], layers)
    for name, tensor in load_file(checkpoint / "model.safetensors").items():
        writer.add_tensor(_gguf_name(names, name), _laid_out(name, tensor, kind, config))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _write_gpt2_facts(writer: gguf.GGUFWriter, config: dict[str, Any]) -> int:
    writer.add_context_length(config["n_positions"])
    writer.add_embedding_length(config["n_embd"])
    writer.add_feed_forward_length(4 * config["n_embd"])
    writer.add_block_count(config["n_layer"])
    writer.add_head_count(config["n_head"])
    writer.add_layer_norm_eps(config["layer_norm_epsilon"])
    return int(config["n_layer"])


def _write_llama_facts(writer: gguf.GGUFWriter, config: dict[str, Any]) -> int:
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_rope_dimension_count(config["hidden_size"] // config["num_attention_heads"])
    writer.add_vocab_size(config["vocab_size"])
    return int(config["num_hidden_layers"])


def _write_vocabulary(writer: gguf.GGUFWriter, checkpoint: Path) -> None:
    entries = json.loads((checkpoint / "tokenizer.json").read_text())["model"]["vocab"]
    tokens = sorted(entries, key=entries.__getitem__)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.CONTROL] + [gguf.TokenType.NORMAL] * (len(tokens) - 1))
    writer.add_token_merges(["a b"])  # llama.cpp refuses a vocabulary without any
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)


def _gguf_name(names: gguf.TensorNameMap, name: str) -> str:
    found = names.get_name(name, try_suffixes=(".weight", ".bias"))
    if found is None:
        raise KeyError(f"gguf has no name for {name}")
    return found


def _laid_out(name: str, tensor: np.ndarray, kind: str, config: dict[str, Any]) -> np.ndarray:
    if kind == "gpt2" and name.endswith(TRANSPOSED):
        tensor = tensor.T
    if kind == "llama" and name.endswith(("q_proj.weight", "k_proj.weight")):
        heads = config["num_attention_heads" if "q_proj" in name else "num_key_value_heads"]
        tensor = _interleaved(tensor, heads)
    return np.ascontiguousarray(tensor, np.float32)


def _interleaved(weight: np.ndarray, heads: int) -> np.ndarray:
    """llama.cpp rotates neighbours, Hugging Face rotates halves: rows of each head are [2, D/2]
    there and [D/2, 2] here.
    """
    rows, columns = weight.shape
    return (
        weight.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)
    )


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
