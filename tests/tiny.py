"""Tiny checkpoints for tests: real architectures with random weights and a tokenizer trained in
place. No network.
"""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

VOCABULARY = 384
_CORPUS = [
    (
        "The quick brown fox jumps over the lazy dog. Where is the café? It is near the river, 25 "
        "steps away."
    ),
    "name: Ann | city: Rome | food: pasta | price: cheap -> Ann eats cheap pasta in Rome.",
    "I cannot log in to my account, please help. The parcel never came. What does delivery cost?",
]


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE of at most VOCABULARY entries; id 0 ends a text, id 1 pads."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<|endoftext|>", "<|pad|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_CORPUS, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|endoftext|>", pad_token="<|pad|>"
    )


def randomise(model: PreTrainedModel, *, seed: int = 0, spread: float = 0.05) -> PreTrainedModel:
    """Random biases and norms too, so that a dropped one shows; the weights are large enough to
    make logits differ.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(
                parameter + spread * noise if parameter.dim() < 2 else spread * 2 * noise
            )
    return model.eval()


def tiny_llama(**changes: object) -> PreTrainedModel:
    """2 layers, 4 query heads over 2 key/value heads of 16, tied embeddings, 256 positions."""
    config: dict[str, object] = {
        "vocab_size": VOCABULARY,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "tie_word_embeddings": True,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "pad_token_id": 1,
    }
    return randomise(LlamaForCausalLM(LlamaConfig(**(config | changes))))


def tiny_gpt2(**changes: object) -> PreTrainedModel:
    """2 layers, 4 heads of 16, learned positions up to 256."""
    config: dict[str, object] = {
        "vocab_size": VOCABULARY, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 256,
        "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 1,
    }  # fmt: skip
    return randomise(GPT2LMHeadModel(GPT2Config(**(config | changes))))


def tiny_mistral(*, window: int = 12, **changes: object) -> PreTrainedModel:
    """2 layers with a sliding window shorter than most prompts."""
    config: dict[str, object] = {
        "vocab_size": VOCABULARY,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "head_dim": 16,
        "sliding_window": window,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "pad_token_id": 1,
    }
    return randomise(MistralForCausalLM(MistralConfig(**(config | changes))))


def save_checkpoint(model: PreTrainedModel, folder: Path) -> Path:
    """Writes a model and the tiny tokenizer as a Hugging Face checkpoint; gives the folder back."""
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder
