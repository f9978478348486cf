"""onnxruntime-genai's builder has no GPT-2: Optimum's graph with a configuration by hand runs.

python convert_genai_gpt2.py CHECKPOINT OPTIMUM_FOLDER FOLDER
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any


def convert(checkpoint: Path, optimum: Path, folder: Path) -> None:
    """Copies graph and tokenizer, writes genai_config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    graph = next(path for path in sorted(optimum.glob("*.onnx")))
    for path in [*optimum.glob(f"{graph.stem}*"), *checkpoint.glob("tokenizer*.json")]:
        shutil.copy(path, folder / path.name)
    config = json.loads((checkpoint / "config.json").read_text())
    (folder / "genai_config.json").write_text(
        json.dumps(_genai_config(config, graph.name), indent=2)
    )


def _genai_config(config: dict[str, Any], graph: str) -> dict[str, Any]:
    names = {
        "past_key_names": "past_key_values.%d.key",
        "past_value_names": "past_key_values.%d.value",
    }
    decoder = {
        "session_options": {"log_id": "onnxruntime-genai", "provider_options": []},
        "filename": graph,
        "head_size": config["n_embd"] // config["n_head"],
        "hidden_size": config["n_embd"],
        "num_attention_heads": config["n_head"],
        "num_key_value_heads": config["n_head"],
        "num_hidden_layers": config["n_layer"],
        "inputs": {
            "input_ids": "input_ids",
            "attention_mask": "attention_mask",
            "position_ids": "position_ids",
            **names,
        },
        "outputs": {
            "logits": "logits",
            "present_key_names": "present.%d.key",
            "present_value_names": "present.%d.value",
        },
    }
    model = {
        # Any decoder with separate keys and values; its own "gpt2" takes them stacked
        "type": "llama",
        "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0,
        "context_length": config["n_positions"],
        "vocab_size": config["vocab_size"],
        "decoder": decoder,
    }  # fmt: skip
    search = {
        "do_sample": False,
        "max_length": config["n_positions"],
        "past_present_share_buffer": False,
    }
    return {"model": model, "search": search}


if __name__ == "__main__":
    convert(*(Path(argument) for argument in sys.argv[1:]))
