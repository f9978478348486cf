"""What the commands work on: a tiny base, a bundle of it, a prefix and a few rows."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from faulty_jobs import Job, jobs

from edgeprefix.export import export_decoder
from edgeprefix.train import PrefixConfig, TrainConfig, train_prefix
from tiny import save_checkpoint, tiny_llama

CITIES = ["Rome", "Oslo", "Lima"]


def make_jobs(folder: Path) -> list[Job]:
    """All jobs, over inputs made in `folder`."""
    torch.set_num_threads(1)
    folder.mkdir(parents=True, exist_ok=True)
    base = save_checkpoint(tiny_llama(), folder / "base")
    rows = folder / "rows.jsonl"
    rows.write_text(
        "".join(
            json.dumps({"input": f"Where is number {index}?", "target": CITIES[index % 2]}) + "\n"
            for index in range(12)
        )
    )
    bundle = folder / "bundle"
    if not bundle.exists():
        export_decoder(base, bundle, precision="fp32")
    run = train_prefix(
        base,
        rows,
        rows,
        task="cities",
        out=folder / "run",
        prefix=PrefixConfig(length=4),
        train=TrainConfig(steps=2, batch_size=8, precision="fp32"),
        force=True,
    )
    return jobs(base, bundle, run.prefix_path, rows)
