"""Pretrain the embedded base model: a Llama of 3.2 million parameters, from scratch, on a CPU.

    python -m edgeprefix.demo.pretraining.pretrain --work FOLDER --steps N --cooldown C

Warm up, stay constant, cool down: the learning rate before the cool-down does not depend on the
number of steps, so a run may be stopped and resumed with another `--steps`, and it is then exactly
the run that `--steps` would have given from the start. The cool-down sees more natural text than
the time before: copying is learned by then. Matrices learn with Muon, the embedding and the norms
with AdamW. The work folder holds the token files of `corpus`, and gets `checkpoint.pt`, `log.jsonl`
and, every few minutes, `export/`.
"""

import argparse
import json
import math
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import distributed
from torch.multiprocessing.spawn import spawn
from torch.nn import functional as F
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from edgeprefix.demo.pretraining.corpus import Windows, read_windows
from edgeprefix.demo.pretraining.tokenizer import END_ID, PAD_ID, VOCABULARY, save_for_transformers

_POSITIONS = 1024
_SAMPLES = (
    (
        "name[The Copper Whistle], kind[pub], food[Irish], price[less than £15], area[harbour], "
        "near[Gino's Table]\n"
    ),
    "venue: Café Tolbrin\ntype: coffee shop\nrating: 3 out of 5\nkids: yes\n\n",
    "Message: My suitcase never arrived in Bramford.\nDepartment: luggage\n\n"
    "Message: I was charged twice for my ticket.\nDepartment:",
    "Direct: Send me the invoice for the lamp by Monday.\nPolite:",
    "The most important thing about a market is",
)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that decides what a run gives."""

    work: Path
    steps: int
    cooldown: int
    warmup: int = 100
    batch: int = 8
    synthetic_share: float = 0.5
    late_synthetic_share: float = (
        0.375  # copying is learned by then; natural English is what still lacks
    )
    matrix_rate: float = 3e-3
    other_rate: float = 3e-3
    optimizer: str = "muon"
    seed: int = 0
    compile: bool = True
    workers: int = 2


def base_config() -> LlamaConfig:
    """Return the architecture of the base."""
    return LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=6,
        num_attention_heads=6,
        num_key_value_heads=3,
        head_dim=32,
        max_position_embeddings=_POSITIONS,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        tie_word_embeddings=True,
        bos_token_id=END_ID,
        eos_token_id=END_ID,
        pad_token_id=PAD_ID,
        initializer_range=0.02,
    )


def rate_at(step: int, settings: Settings) -> float:
    """Return the share of the full learning rate at `step`: warm-up, constant, linear cool-down."""
    warm = min(1.0, (step + 1) / settings.warmup)
    left = (settings.steps - step) / max(1, settings.cooldown)
    return warm * min(1.0, left)


def build_optimizers(model: LlamaForCausalLM, settings: Settings) -> list[torch.optim.Optimizer]:
    """Return Muon for the layers' matrices and AdamW for the rest, or AdamW for everything."""
    matrices = [p for name, p in model.named_parameters() if p.dim() == 2 and "embed" not in name]
    table = [p for name, p in model.named_parameters() if p.dim() == 2 and "embed" in name]
    norms = [p for p in model.parameters() if p.dim() < 2]
    groups: list[dict[str, Any]] = [
        {"params": table, "weight_decay": 0.01},
        {"params": norms, "weight_decay": 0.0},
    ]
    if settings.optimizer == "adamw":
        groups.append({"params": matrices, "weight_decay": 0.1})
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(groups, lr=settings.other_rate, betas=(0.9, 0.95), fused=True)
    ]
    if settings.optimizer == "muon":
        optimizers.append(
            torch.optim.Muon(
                matrices, lr=settings.matrix_rate, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"
            )
        )
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["full_rate"] = group["lr"]
    return optimizers


def token_losses(model: LlamaForCausalLM, ids: torch.Tensor) -> torch.Tensor:
    """Return the loss of every token after the first, `[B, S - 1]`; padding has 0."""
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(input_ids=ids, use_cache=False).logits
    targets = ids[:, 1:].masked_fill(ids[:, 1:] == PAD_ID, -100)
    losses = F.cross_entropy(
        logits[:, :-1].reshape(-1, logits.shape[-1]).float(), targets.reshape(-1), reduction="none"
    )
    return losses.view(targets.shape)


def summed_loss(model: LlamaForCausalLM, ids: torch.Tensor) -> torch.Tensor:
    """Return the sum of the losses of all tokens."""
    return token_losses(model, ids).sum()


class Trainer:
    """The model, its optimizers and its place in the data; `step` counts the updates done.

    Each worker process holds one, with a single thread, and takes its rows of every batch;
    gradients are added up once a step. On a busy machine that is faster than threads, which would
    wait for each other at every operation.
    """

    def __init__(self, settings: Settings, *, rank: int = 0) -> None:
        torch.manual_seed(settings.seed)
        torch.set_num_threads(1)
        self.settings = settings
        self.rank = rank
        self.model = LlamaForCausalLM(base_config())
        self.optimizers = build_optimizers(self.model, settings)
        self.windows = Windows(
            settings.work,
            seed=settings.seed,
            batch=settings.batch,
            shares=(settings.synthetic_share, settings.late_synthetic_share),
            change=settings.steps - settings.cooldown,
        )
        self.tokenizer = Tokenizer.from_file(str(settings.work / "tokenizer.json"))
        self.step = 0
        self.seconds = 0.0
        loss: Callable[[LlamaForCausalLM, torch.Tensor], torch.Tensor] = summed_loss
        self.loss = torch.compile(summed_loss) if settings.compile else loss

    @property
    def tokens(self) -> int:
        """Tokens seen so far."""
        return self.step * self.settings.batch * self.windows.length

    def update(self) -> float:
        """Do one step and return its loss."""
        rate = rate_at(self.step, self.settings)
        batch = torch.from_numpy(self.windows.batch(self.step))
        count = (batch[:, 1:] != PAD_ID).sum()
        loss = self.loss(self.model, batch[self.rank :: self.settings.workers].contiguous()) / count
        loss.backward()  # type: ignore[no-untyped-call]
        total = self._add_up(loss.detach())
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["full_rate"] * rate
            optimizer.step()
            optimizer.zero_grad()
        self.step += 1
        return total

    def _add_up(self, loss: torch.Tensor) -> float:
        """Add loss and gradients over the workers, in one message."""
        if self.settings.workers == 1:
            return loss.item()
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        message = torch.cat([loss.view(1), *(gradient.view(-1) for gradient in gradients)])
        distributed.all_reduce(message)
        for gradient, part in zip(
            gradients, torch.split(message[1:], [g.numel() for g in gradients]), strict=True
        ):
            gradient.copy_(part.view_as(gradient))
        return message[0].item()

    def validate(self) -> dict[str, float]:
        """Return the losses on held-out prose and made-up text, and loss and accuracy on restated
        values.
        """
        with torch.inference_mode():
            natural = self._held_out("natural.validation", 48)
            synthetic = self._held_out("synthetic.validation", 32)
            return {"natural": natural, "synthetic": synthetic, **self._copying()}

    def _held_out(self, name: str, most: int) -> float:
        windows = read_windows(self.settings.work / f"{name}.bin", self.windows.length)[:most]
        total, count = 0.0, 0
        for start in range(0, len(windows), 16):
            ids = torch.from_numpy(windows[start : start + 16].astype(np.int64))
            total += float(token_losses(self.model, ids).sum())
            count += int((ids[:, 1:] != PAD_ID).sum())
        return round(total / count, 4)

    def _copying(self) -> dict[str, float]:
        both = read_windows(self.settings.work / "copied.validation.bin", self.windows.length)
        ids, marks = (half[:64] for half in np.split(both, 2))
        loss = right = count = 0.0
        for start in range(0, len(ids), 16):
            rows = torch.from_numpy(ids[start : start + 16].astype(np.int64))
            marked = torch.from_numpy(marks[start : start + 16, 1:].astype(bool))
            with torch.autocast("cpu", torch.bfloat16):
                logits = self.model(input_ids=rows, use_cache=False).logits[:, :-1].float()
            chosen, targets = logits[marked], rows[:, 1:][marked]
            loss += float(F.cross_entropy(chosen, targets, reduction="sum"))
            right += float((chosen.argmax(-1) == targets).sum())
            count += len(targets)
        return {"copied": round(loss / count, 4), "copied_accuracy": round(right / count, 4)}

    def complete(self, prompt: str, tokens: int = 48) -> str:
        """Continue `prompt` greedily."""
        ids = torch.tensor([self.tokenizer.encode(prompt).ids])
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            for _ in range(tokens):
                following = int(self.model(input_ids=ids, use_cache=False).logits[0, -1].argmax())
                if following == END_ID:
                    break
                ids = torch.cat([ids, torch.tensor([[following]])], 1)
        return str(self.tokenizer.decode(ids[0].tolist(), skip_special_tokens=False))[len(prompt) :]

    def save(self) -> None:
        """Write the checkpoint: all that an exact resume needs, in one rename."""
        state = {
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "step": self.step,
            "seconds": self.seconds,
            "seed": self.settings.seed,
        }
        path = self.settings.work / "checkpoint.pt"
        torch.save(state, path.with_suffix(".new"))
        os.replace(path.with_suffix(".new"), path)

    def load(self) -> None:
        """Go on from the checkpoint."""
        state = torch.load(self.settings.work / "checkpoint.pt", weights_only=True)
        if state["seed"] != self.settings.seed:
            raise ValueError(
                f"the checkpoint was made with --seed {state['seed']}, not {self.settings.seed}"
            )
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.step, self.seconds = state["step"], state["seconds"]

    def export(self, folder: Path) -> None:
        """Write model and tokenizer for `from_pretrained`, bf16; other files in the folder, such as
        its README, stay.
        """
        fresh, stale = (
            folder.with_name(folder.name + ".new"),
            folder.with_name(folder.name + ".old"),
        )
        shutil.rmtree(fresh, ignore_errors=True)
        copy = LlamaForCausalLM(base_config()).bfloat16()
        copy.load_state_dict(self.model.state_dict())
        generation = GenerationConfig(bos_token_id=END_ID, eos_token_id=END_ID, pad_token_id=PAD_ID)  # type: ignore[no-untyped-call]
        copy.generation_config = generation
        copy.save_pretrained(fresh)
        save_for_transformers(self.tokenizer, fresh, positions=_POSITIONS)
        for path in fresh.iterdir():
            path.chmod(0o644)
        shutil.rmtree(stale, ignore_errors=True)
        if folder.exists():
            for path in folder.iterdir():
                if not (fresh / path.name).exists():
                    shutil.copy2(path, fresh / path.name)
            folder.rename(stale)
        fresh.rename(folder)
        shutil.rmtree(stale, ignore_errors=True)


class Log:
    """A JSON-lines log that forgets, on resuming, what came after the checkpoint."""

    def __init__(self, path: Path, step: int) -> None:
        self.path = path
        lines = path.read_text("utf-8").splitlines() if path.exists() else []
        kept = [line for line in lines if json.loads(line)["step"] <= step]
        path.write_text("".join(f"{line}\n" for line in kept), "utf-8")

    def write(self, **entry: object) -> None:
        """Append one entry and show it."""
        line = json.dumps(entry, ensure_ascii=False)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        print(line, flush=True)


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How often a run logs and validates, in steps, and how often it saves and exports, in
    seconds.
    """

    log: int = 50
    validate: int = 500
    save: float = 240.0
    export: float = 720.0


class _Diary:
    """What the first worker does between steps: log, validate, save, export."""

    def __init__(self, trainer: Trainer, pace: Pace) -> None:
        self.trainer, self.pace = trainer, pace
        self.log = Log(trainer.settings.work / "log.jsonl", trainer.step)
        self.losses: list[float] = []
        self.marked = self.saved = self.exported = time.perf_counter()

    def note(self, loss: float) -> None:
        """Take note of one step."""
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"the loss is {loss} at step {self.trainer.step}; the last checkpoint is unharmed"
            )
        self.losses.append(loss)
        last = self.trainer.step == self.trainer.settings.steps
        # Saving only where the log was written keeps the log gapless after a resume.
        if last or self.trainer.step % self.pace.log == 0:
            self._log()
            if last or self.trainer.step % self.pace.validate == 0:
                self._validate()
            self._keep(last)
            self.marked = time.perf_counter()

    def _log(self) -> None:
        trainer, seconds = self.trainer, time.perf_counter() - self.marked
        trainer.seconds += seconds
        speed = len(self.losses) * trainer.settings.batch * trainer.windows.length / seconds
        self.log.write(
            step=trainer.step,
            tokens=trainer.tokens,
            loss=round(sum(self.losses) / len(self.losses), 4),
            rate=round(rate_at(trainer.step - 1, trainer.settings), 4),
            tokens_per_second=round(speed),
        )
        self.losses = []

    def _validate(self) -> None:
        self.log.write(
            step=self.trainer.step, tokens=self.trainer.tokens, validation=self.trainer.validate()
        )
        for prompt in _SAMPLES:
            print(f"--- {prompt}>>>{self.trainer.complete(prompt)}", flush=True)

    def _keep(self, last: bool) -> None:
        now = time.perf_counter()
        if last or now - self.saved > self.pace.save:
            self.trainer.save()
            self.saved = now
        if last or now - self.exported > self.pace.export:
            self.trainer.export(self.trainer.settings.work / "export")
            self.exported = now


def train(trainer: Trainer, *, pace: Pace | None = None) -> None:
    """Run to the last step; the first worker logs, validates, saves and exports on the way."""
    diary = _Diary(trainer, pace or Pace()) if trainer.rank == 0 else None
    while trainer.step < trainer.settings.steps:
        loss = trainer.update()
        if diary:
            diary.note(loss)


def _work(rank: int, settings: Settings, fresh: bool) -> None:
    """Train as one of the workers."""
    if settings.workers > 1:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        meeting = (settings.work / "meeting").resolve().as_uri()
        distributed.init_process_group(
            "gloo", init_method=meeting, rank=rank, world_size=settings.workers
        )
    trainer = Trainer(settings, rank=rank)
    if not fresh:
        trainer.load()
    train(trainer)
    if settings.workers > 1:
        distributed.destroy_process_group()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Pretrain the base model on the token files of a work folder."
    )
    parser.add_argument("--work", type=Path, default=Path("build/pretraining"))
    parser.add_argument(
        "--steps", type=int, required=True, help="updates in all, those before a resume included"
    )
    parser.add_argument(
        "--cooldown",
        type=int,
        default=0,
        help="the last updates, over which the rate falls to nothing",
    )
    parser.add_argument("--matrix-rate", type=float, default=Settings.matrix_rate)
    parser.add_argument("--other-rate", type=float, default=Settings.other_rate)
    parser.add_argument("--optimizer", choices=("muon", "adamw"), default=Settings.optimizer)
    parser.add_argument("--batch", type=int, default=Settings.batch)
    parser.add_argument("--seed", type=int, default=Settings.seed)
    parser.add_argument(
        "--workers", type=int, default=Settings.workers, help="processes of one thread each"
    )
    parser.add_argument(
        "--no-compile", dest="compile", action="store_false", help="run without torch.compile"
    )
    parser.add_argument(
        "--fresh", action="store_true", help="start anew, whatever checkpoint there is"
    )
    parser.add_argument(
        "--export",
        type=Path,
        metavar="DIR",
        help="write the checkpoint as a model folder, train nothing",
    )
    return parser


def main() -> None:
    """Train, resume or export."""
    options = vars(_parser().parse_args())
    fresh, target = options.pop("fresh"), options.pop("export")
    settings = Settings(**options)
    fresh = fresh or not (settings.work / "checkpoint.pt").exists()
    if target:
        trainer = Trainer(settings)
        trainer.load()
        trainer.export(target)
        return
    (settings.work / "meeting").unlink(missing_ok=True)
    if settings.workers == 1:
        _work(0, settings, fresh)
    else:
        spawn(_work, (settings, fresh), nprocs=settings.workers)  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()
