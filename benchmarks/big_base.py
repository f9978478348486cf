"""How much memory does exporting a big base take? A random Llama of a billion parameters in bf16,
and each stage's peak.

    python benchmarks/big_base.py [--precision int4] [--layers 16] [--json results.json]

The checkpoint is made in a temporary folder by a process of its own. Memory is that of the
exporting process, twenty times a second, from /proc/self/status: *anonymous* (RssAnon: what it has
allocated), *resident* (VmRSS: that and the pages of mapped files, the checkpoint's and the
bundle's, which the system takes back when it needs them). Peaks are those up to the end of a stage.
`over checkpoint` is the resident peak divided by the checkpoint's size. The last line is the table
as JSON.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from edgeprefix.export import export_decoder
from edgeprefix.export.bundle import STAGES

_MAKE = """
import sys, torch
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from tiny import tiny_tokenizer
from transformers import LlamaConfig, LlamaForCausalLM
torch.set_default_dtype(torch.bfloat16)
config = LlamaConfig(
    hidden_size=2048, intermediate_size=8192, num_hidden_layers=int(sys.argv[2]),
    num_attention_heads=32, num_key_value_heads=8, vocab_size=128256, tie_word_embeddings=True,
    max_position_embeddings=8192,
)
LlamaForCausalLM(config).save_pretrained(sys.argv[1])
tiny_tokenizer().save_pretrained(sys.argv[1])
"""


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory() as name:
        base, tests = Path(name) / "base", Path(__file__).parents[1] / "tests"
        subprocess.run(
            [sys.executable, "-c", _MAKE, str(base), str(options.layers), str(tests)], check=True
        )
        checkpoint = sum(file.stat().st_size for file in base.glob("*.safetensors"))
        peaks: dict[str, dict[str, float]] = {}
        sampler = _Sampler()
        sampler.start()
        start = _memory()
        started = time.perf_counter()
        manifest = export_decoder(
            base,
            Path(name) / "bundle",
            precision=options.precision,
            progress=lambda stage, done: peaks.update({stage: dict(sampler.peak)}),
        )
        seconds = time.perf_counter() - started
        parity = dict(manifest.parity)
    print(f"checkpoint {checkpoint / 1e9:.2f} GB in bf16, {options.precision}, {seconds:.0f} s\n")
    print(f"{'up to':<10}{'anonymous GB':>14}{'resident GB':>13}{'over checkpoint':>17}")
    for stage in STAGES:
        anonymous, resident = peaks[stage]["anonymous"], peaks[stage]["resident"]
        print(
            f"{stage:<10}{anonymous / 1e9:>14.2f}{resident / 1e9:>13.2f}"
            f"{resident / checkpoint:>17.2f}"
        )
    result = {
        "benchmark": "big_base",
        "precision": options.precision,
        "layers": options.layers,
        "checkpoint_bytes": checkpoint,
        "peak_bytes": peaks,
        "at_import_bytes": start,
        "seconds": seconds,
        "kl": parity["kl"],
        "top1": parity["top1"],
        "bundle_bytes": sum(record.bytes for record in manifest.files.values()),
    }
    if options.json:
        Path(options.json).write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


class _Sampler(threading.Thread):
    """Keeps the largest memory of this process, in bytes."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak = _memory()

    def run(self) -> None:
        while True:
            now = _memory()
            self.peak = {kind: max(self.peak[kind], now[kind]) for kind in now}
            time.sleep(0.05)


def _memory() -> dict[str, float]:
    status = Path("/proc/self/status").read_text()
    fields = {"anonymous": "RssAnon:", "resident": "VmRSS:"}
    return {
        kind: int(status.partition(name)[2].split()[0]) * 1024.0 for kind, name in fields.items()
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--precision", default="int4")
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--json", help="file to write the result to")
    return parser.parse_args()


if __name__ == "__main__":
    main()
