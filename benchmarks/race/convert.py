"""Makes checkpoints and every peer's model of them, each with that peer's own tools.

A model is made in a folder of another name and renamed when it is whole, so an interrupted
conversion starts again. What is there is kept: `--force --peers ours` exports ours again, with the
exporter of this work tree.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.race.environments import python_of
from benchmarks.race.field import CONTENDERS
from benchmarks.race.shapes import SHAPES

HERE = Path(__file__).parent
OPENVINO_GROUPS = {"smollm2-135m": "64"}  # its width, 576, is no multiple of the usual 128
Command = list[str | Path]


def checkpoint_of(work: Path, model: str) -> Path:
    """The Hugging Face checkpoint of a shape."""
    return work / "checkpoints" / model


def model_of(work: Path, peer: str, model: str, precision: str) -> Path:
    """What a peer loads: a folder that it converted, or the checkpoint itself."""
    return (
        checkpoint_of(work, model) if peer == "peft" else work / "models" / peer / model / precision
    )


def convert(work: Path, peer: str, model: str, precision: str, *, force: bool = False) -> None:
    """Makes a peer's model, and before it what it is made of. Raises CalledProcessError when the
    peer's tool fails.
    """
    _checkpoint(work, model)
    folder = model_of(work, peer, model, precision)
    if peer == "peft" or (folder.is_dir() and not force):
        return
    if (peer, precision) in QUANTISED_FROM_FP32:
        convert(work, peer, model, "fp32")
    print(f"converting {model} {precision} for {CONTENDERS[peer].title}", flush=True)
    with_folder = folder.with_name(f".{folder.name}")
    shutil.rmtree(with_folder, ignore_errors=True)
    with_folder.parent.mkdir(parents=True, exist_ok=True)
    for command in COMMANDS[peer](work, model, precision, with_folder):
        _run(command)
    shutil.rmtree(folder, ignore_errors=True)
    with_folder.rename(folder)


QUANTISED_FROM_FP32 = {("llama", "int8"), ("llama", "int4"), ("optimum", "int8")}


def _checkpoint(work: Path, model: str) -> None:
    folder = checkpoint_of(work, model)
    if not folder.is_dir():
        unfinished = folder.with_name(f".{folder.name}")
        unfinished.parent.mkdir(parents=True, exist_ok=True)
        _run([python_of(work, "convert"), HERE / "shapes.py", model, unfinished])
        unfinished.rename(folder)


def _ours(work: Path, model: str, precision: str, folder: Path) -> Iterator[Command]:
    yield [
        python_of(work, "convert"),
        HERE / "export_ours.py",
        checkpoint_of(work, model),
        folder,
        precision,
    ]


def _llama(work: Path, model: str, precision: str, folder: Path) -> Iterator[Command]:
    folder.mkdir()
    target = folder / "model.gguf"
    if precision == "fp32":
        yield [
            python_of(work, "convert"),
            HERE / "convert_llama.py",
            checkpoint_of(work, model),
            target,
        ]
    else:
        source = model_of(work, "llama", model, "fp32") / "model.gguf"
        yield [python_of(work, "llama"), HERE / "quantise_llama.py", source, target, precision]


def _genai(work: Path, model: str, precision: str, folder: Path) -> Iterator[Command]:
    if SHAPES[model].config["model_type"] == "gpt2":
        convert(work, "optimum", model, precision)
        source = model_of(work, "optimum", model, precision)
        yield [
            python_of(work, "convert"),
            HERE / "convert_genai_gpt2.py",
            checkpoint_of(work, model),
            source,
            folder,
        ]
        return
    builder: Command = [python_of(work, "convert"), "-m", "onnxruntime_genai.models.builder"]
    options: Command = ["-p", precision, "-e", "cpu", "--extra_options", "prune_lm_head=true"]
    yield [*builder, "-i", checkpoint_of(work, model), "-o", folder, *options]


def _openvino(work: Path, model: str, precision: str, folder: Path) -> Iterator[Command]:
    command = _exporter(work, "convert_openvino", "openvino", model)
    if precision == "int4" and model in OPENVINO_GROUPS:
        command += ["--group-size", OPENVINO_GROUPS[model]]
    yield [*command, "--weight-format", precision, folder]


def _ctranslate2(work: Path, model: str, precision: str, folder: Path) -> Iterator[Command]:
    kind = {"fp32": "float32", "int8": "int8"}[precision]
    tool = _tool(work, "convert", "ct2-transformers-converter")
    yield [
        *tool,
        "--model",
        checkpoint_of(work, model),
        "--output_dir",
        folder,
        "--quantization",
        kind,
    ]


def _optimum(work: Path, model: str, precision: str, folder: Path) -> Iterator[Command]:
    if precision == "fp32":
        yield [*_exporter(work, "optimum", "onnx", model), folder]
    else:
        source = model_of(work, "optimum", model, "fp32")
        yield [python_of(work, "optimum"), HERE / "quantise_optimum.py", source, folder]


def _exporter(work: Path, environment: str, kind: str, model: str) -> Command:
    tool = _tool(work, environment, "optimum-cli")
    return [
        *tool,
        "export",
        kind,
        "--model",
        checkpoint_of(work, model),
        "--task",
        "text-generation-with-past",
    ]


def _tool(work: Path, environment: str, name: str) -> Command:
    python = python_of(work, environment)
    return [python, python.with_name(name)]


COMMANDS: dict[str, Callable[[Path, str, str, Path], Iterator[Command]]] = {
    "ours": _ours,
    "llama": _llama,
    "genai": _genai,
    "openvino": _openvino,
    "ctranslate2": _ctranslate2,
    "optimum": _optimum,
}


def _run(command: Command) -> None:
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    subprocess.run(command, check=True, env={**os.environ, **offline})
