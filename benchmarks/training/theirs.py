"""PEFT's methods and full fine-tuning, with transformers' Trainer on the same rows, steps and
batches.

bf16 where ours takes bf16, AdamW with warm-up and linear decay as ours, no weight decay. LoRA's
rank gives about as many trained numbers as the prefix; "peft-cartridge-text" is PEFT's only prefix
that can start from text (over training rows, as ours).
"""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from cells import Cell
from data import PROMPT, Rows

from edgeprefix.train import load_base
from edgeprefix.train.data import Example, TrainingData, load_data
from edgeprefix.train.model import LayerShape
from edgeprefix.train.prompt_dropout import PromptDropout


def train_theirs(
    cell: Cell, rows: Rows, base: Path, work: Path, *, prompt_dropout: float = 0.0
) -> tuple[Path, Path, dict[str, Any]]:
    """Trains a cell. Gives the base's folder, the adapter's folder (the same folder where weights
    were changed), and facts.

    `prompt_dropout` gives them our trainer's shortened prompts.
    """
    from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

    loaded = load_base(base)
    data = load_data(
        rows.train, rows.held_out[:16], tokenizer=loaded.tokenizer, prompt=PROMPT,
        max_tokens=loaded.max_positions - cell.length,
    )  # fmt: skip
    layers, half, on_cpu = loaded.layers, loaded.precision == "bf16", loaded.device.type == "cpu"
    del loaded  # a second base in memory would be counted as theirs
    torch.manual_seed(cell.seed)
    model = _adapted(
        AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, trust_remote_code=False),
        cell,
        layers,
        data,
    )
    trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    arguments = TrainingArguments(
        output_dir=str(work / "trainer"),
        max_steps=cell.steps,
        per_device_train_batch_size=min(cell.batch_size, len(rows.train)),
        learning_rate=cell.rate,
        warmup_steps=max(1, cell.steps // 20),
        lr_scheduler_type="linear",
        weight_decay=0.0,
        bf16=half,
        use_cpu=on_cpu,
        report_to=[],
        save_strategy="no",
        logging_strategy="no",
        seed=cell.seed,
        remove_unused_columns=False,
        disable_tqdm=True,
    )
    dropout, chance = PromptDropout.over(data.train, prompt_dropout), random.Random(cell.seed)
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=list(data.train),
        data_collator=lambda examples: _padded(
            [dropout.shortened(example, chance) for example in examples]
        ),
    )
    began = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - began
    tokens = (
        cell.steps
        * cell.batch_size
        * sum(example.length - 1 for example in data.train)
        / len(data.train)
    )
    saved, adapter, size = _saved(model, cell, base, work)
    facts = {
        "rate": cell.rate,
        "trained_numbers": trained,
        "seconds": round(seconds, 2),
        "tokens_per_s": round(tokens / seconds),
        "file_bytes": size,
    }
    return saved, adapter, facts


def _adapted(model: Any, cell: Cell, layers: Sequence[LayerShape], data: TrainingData) -> Any:
    if cell.method == "full":
        return model
    from peft import CartridgeConfig, LoraConfig, PrefixTuningConfig, get_peft_model

    if cell.method.startswith("peft-prefix"):
        start = "zero" if cell.method.endswith("zero") else None
        config: Any = PrefixTuningConfig(
            task_type="CAUSAL_LM", num_virtual_tokens=cell.length, init_weights=start
        )
        return get_peft_model(model, config)
    if cell.method == "peft-cartridge-text":
        return _cartridge(
            get_peft_model(
                model, CartridgeConfig(task_type="CAUSAL_LM", num_virtual_tokens=cell.length)
            ),
            cell,
            data,
        )
    wanted = sum(
        cell.length * shape.kv_heads * (shape.key_size + shape.value_size) for shape in layers
    )
    one = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=1))
    per_rank = sum(weight.numel() for weight in one.parameters() if weight.requires_grad)
    config = LoraConfig(task_type="CAUSAL_LM", r=max(1, round(wanted / per_rank)), lora_alpha=16)
    return get_peft_model(one.unload(), config)


def _cartridge(model: Any, cell: Cell, data: TrainingData) -> Any:
    """Keys and values over training rows with their targets."""
    from peft.tuners.cartridge.utils import initialize_kv_prefix_from_past_key_values

    order = random.Random(cell.seed)
    ids: list[int] = []
    while len(ids) < cell.length:
        example = order.choice(data.train)
        ids += example.prompt + example.target
    with torch.no_grad(), model.disable_adapter():
        past = model.get_base_model()(
            input_ids=torch.tensor([ids[: cell.length]]), use_cache=True
        ).past_key_values
    initialize_kv_prefix_from_past_key_values(
        model, past_key_values=past, num_virtual_tokens=cell.length
    )
    return model


def _saved(model: Any, cell: Cell, base: Path, work: Path) -> tuple[Path, Path, int]:
    """The base's folder that the judge loads, the adapter's folder, and the bytes that a user would
    ship.
    """
    adapter = work / "adapter"
    model.save_pretrained(adapter)
    size = sum(file.stat().st_size for file in adapter.glob("*.safetensors"))
    if cell.method not in ("full", "peft-lora"):
        return base, adapter, size
    whole = work / "whole"
    (model if cell.method == "full" else model.merge_and_unload()).save_pretrained(whole)
    for file in base.glob("token*"):
        shutil.copy(file, whole)
    return whole, whole, size


def _padded(examples: list[Example]) -> dict[str, torch.Tensor]:
    """Right-padded ids with a mask; only target tokens are labels."""
    length = max(example.length for example in examples)
    ids, labels = (
        torch.zeros(len(examples), length, dtype=torch.long),
        torch.full((len(examples), length), -100),
    )
    mask = torch.zeros(len(examples), length, dtype=torch.long)
    for row, example in enumerate(examples):
        ids[row, : example.length] = torch.tensor(example.prompt + example.target)
        labels[row, len(example.prompt) : example.length] = torch.tensor(example.target)
        mask[row, : example.length] = 1
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}
