"""The models of the race: real shapes, random weights from a seed, saved once as Hugging Face
checkpoints.

Speed does not depend on what the weights say, as long as every peer has the same ones. They are
drawn wide enough that layers change the next token, so that peers can be compared by the tokens
they give. Runs in the environment `convert`:

    python shapes.py NAME FOLDER
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SEED = 0
SPREAD = 3.0  # times the usual 0.02: with less, a tied head only repeats the last token of a prompt


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A model's configuration and the lengths it is measured at."""

    title: str
    config: dict[str, Any] = field(repr=False)
    long: int = 1024
    """Tokens of the long prompt and of the compiled prefix."""
    new: int = 32
    """Tokens decoded at the short context, batch 1."""
    few: int = 16
    """Tokens decoded at the long context, and in a batch."""
    repeats: int = 2
    """Of the short prompts, in one turn."""

    @property
    def vocabulary(self) -> int:
        return int(self.config["vocab_size"])


SHAPES = {
    "gpt2-124m": Shape(
        title="GPT-2 124M",
        config={
            "model_type": "gpt2",
            "vocab_size": 50257,
            "n_positions": 1024,
            "n_embd": 768,
            "n_layer": 12,
            "n_head": 12,
        },
        # Of 1,024 positions: the rest is for a prompt behind the prefix and for new tokens
        long=960,
    ),
    "smollm2-135m": Shape(
        title="SmolLM2-135M",
        config={
            "model_type": "llama",
            "vocab_size": 49152,
            "hidden_size": 576,
            "intermediate_size": 1536,
            "num_hidden_layers": 30,
            "num_attention_heads": 9,
            "num_key_value_heads": 3,
            "max_position_embeddings": 8192,
            "rope_theta": 100000.0,
            "rms_norm_eps": 1e-5,
            "tie_word_embeddings": True,
        },
    ),
    "qwen2-0.5b": Shape(
        title="Qwen2-0.5B",
        config={
            "model_type": "qwen2",
            "vocab_size": 151936,
            "hidden_size": 896,
            "intermediate_size": 4864,
            "num_hidden_layers": 24,
            "num_attention_heads": 14,
            "num_key_value_heads": 2,
            "max_position_embeddings": 32768,
            "rope_theta": 1000000.0,
            "rms_norm_eps": 1e-6,
            "tie_word_embeddings": True,
        },
        new=12,
        few=6,
        repeats=1,
    ),
}


def save_checkpoint(shape: Shape, folder: Path) -> None:
    """Writes configuration, weights and tokenizer."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    ids = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    config = AutoConfig.for_model(**shape.config, **ids)
    torch.manual_seed(SEED)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 2 and not any(
                table in name for table in ("wte", "wpe", "embed_tokens")
            ):
                parameter.mul_(SPREAD)
    model.save_pretrained(folder)
    save_tokenizer(shape.vocabulary, folder)
    _tell_older_transformers(folder, shape)


def save_tokenizer(vocabulary: int, folder: Path) -> None:
    """A byte-level tokenizer filled up to V entries: peers want one beside a model, the race feeds
    ids.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    entries = ["<|endoftext|>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    entries += [f"w{number:06d}" for number in range(vocabulary - len(entries))]
    tokenizer = Tokenizer(models.BPE({entry: number for number, entry in enumerate(entries)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = dict.fromkeys(("bos_token", "eos_token", "pad_token", "unk_token"), entries[0])
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)


def _tell_older_transformers(folder: Path, shape: Shape) -> None:
    """transformers 4 looks for `rope_theta` and other tokenizer classes than 5 writes; the files
    hold both.
    """
    path = folder / "config.json"
    config = json.loads(path.read_text())
    if "rope_theta" in shape.config:
        config["rope_theta"] = shape.config["rope_theta"]
    config["torch_dtype"] = "float32"
    path.write_text(json.dumps(config, indent=2))
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    path.write_text(json.dumps(settings, indent=2))


if __name__ == "__main__":
    save_checkpoint(SHAPES[sys.argv[1]], Path(sys.argv[2]))
