"""A GGUF file wherever a base is taken: who it is, how it is held, and the commands over it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf_files import MODELS, write_gguf
from hub_server import Hub, serving
from huggingface_hub import constants
from typer.testing import CliRunner

import edgeprefix.train
from edgeprefix.base import find_checkpoint, load_base
from edgeprefix.cli.root import app
from edgeprefix.export import export_decoder, export_prefix
from edgeprefix.export.adopt.optimum import export_with_optimum
from edgeprefix.runtime import Engine, Prefix
from edgeprefix.runtime.contracts.manifest import Manifest
from edgeprefix.runtime.errors import (
    BaseMismatchError,
    CheckpointError,
    EdgePrefixError,
    MissingExtraError,
)
from tiny import save_checkpoint, tiny_llama

IDS = torch.arange(2, 42)[None]


@pytest.fixture(scope="module")
def gguf_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("base") / "tiny.gguf"
    write_gguf(MODELS["llama"](), path, kind="Q8_0", **{"tokenizer.chat_template": TEMPLATE})
    return path


TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}<assistant>"


def identity(path: Path) -> str:
    return find_checkpoint(path).identity().sha256


def test_an_identity_is_that_of_the_model_and_not_of_the_file(
    gguf_base: Path, tmp_path: Path
) -> None:
    """Where it came from and how chats are written is none of it; numbers, facts, tokens are."""
    own = identity(gguf_base)
    copy = shutil.copy(gguf_base, tmp_path / "renamed.gguf")
    assert identity(Path(copy)) == own
    for number, (facts, same) in enumerate(
        (
            ({"general.name": "another", "general.author": "me"}, True),
            ({"general.alignment": 64}, True),
            ({"llama.rope.freq_base": 20000.0}, False),
            ({"tokenizer.ggml.add_bos_token": True}, False),
        )
    ):
        path = tmp_path / f"{number}.gguf"
        write_gguf(MODELS["llama"](), path, kind="Q8_0", **facts)
        assert (identity(path) == own) is same, facts
    data = bytearray(gguf_base.read_bytes())
    data[-40] ^= 1
    (tmp_path / "other.gguf").write_bytes(data)
    assert identity(tmp_path / "other.gguf") != own
    write_gguf(MODELS["llama"](), tmp_path / "kind.gguf", kind="Q4_0")
    assert identity(tmp_path / "kind.gguf") != own


def test_an_identity_is_remembered(
    gguf_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEPREFIX_CACHE", str(tmp_path / "cache"))
    path = Path(shutil.copy(gguf_base, tmp_path / "model.gguf"))
    long_ago = time.time() - 60
    monkeypatch.setattr("time.time_ns", lambda: int((long_ago + 3600) * 1e9))
    own = find_checkpoint(path).identity()
    assert list((tmp_path / "cache").rglob("*.json"))
    monkeypatch.setattr(
        "edgeprefix.base.gguf.source.identity_parts", lambda file: pytest.fail("computed again")
    )
    assert find_checkpoint(path).identity() == own


def test_training_and_export_mean_the_same(gguf_base: Path) -> None:
    exported = load_base(gguf_base)
    trained = edgeprefix.train.load_base(gguf_base, precision="fp32")
    assert exported.identity == trained.identity
    assert exported.identity.name == "tiny.gguf"
    assert trained.tokenizer.end_ids == exported.end_ids == (0,)
    assert exported.begin_id == 0
    assert exported.pad_id == 1
    assert exported.chat_template == TEMPLATE
    assert exported.special_tokens["eos_token"] == "<|endoftext|>"
    torch.testing.assert_close(
        trained.logits([], IDS), exported.model(IDS).logits[0], rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("kind", ["Q4_K", "F16", "BF16"])
@pytest.mark.parametrize("name", ["llama", "llama, untied, biases", "gpt2"])
def test_all_ways_to_hold_it_are_the_same_numbers(kind: str, name: str, tmp_path: Path) -> None:
    write_gguf(MODELS[name](), tmp_path / "model.gguf", kind=kind)
    whole = load_base(tmp_path / "model.gguf", hold="fp32")
    assert whole.state is None
    expected = whole.model.state_dict()
    streamed = load_base(tmp_path / "model.gguf", hold="streamed")
    assert streamed.state is not None
    assert set(streamed.state) == set(expected)
    assert all(torch.equal(streamed.state[name].float(), expected[name]) for name in expected)
    with torch.no_grad():
        for _ in range(2):
            assert torch.equal(streamed.model(IDS).logits, whole.model(IDS).logits)
    stored = load_base(tmp_path / "model.gguf", hold="stored").model.state_dict()
    assert all(torch.equal(stored[name].float(), expected[name]) for name in expected)
    own = {"F16": torch.float16, "BF16": torch.bfloat16}.get(kind, torch.float32)
    assert {tensor.dtype for tensor in stored.values() if tensor.dim() == 2} <= {own, torch.float32}
    half = load_base(tmp_path / "model.gguf", hold="bf16").model
    matrices = [tensor for path, tensor in half.state_dict().items() if "proj" in path]
    assert all(tensor.dtype == torch.bfloat16 for tensor in matrices if tensor.dim() == 2)


@pytest.mark.parametrize("name", ["llama", "llama, untied, biases", "gpt2"])
def test_training_in_bf16_holds_what_it_would_have_rounded(name: str, tmp_path: Path) -> None:
    """Matrices are rounded while they are read, everything else stays as it is."""
    write_gguf(MODELS[name](), tmp_path / "model.gguf", kind="Q5_K")
    model = MODELS[name]()
    model.load_state_dict(load_base(tmp_path / "model.gguf").model.state_dict())
    checkpoint = save_checkpoint(model, tmp_path / "checkpoint")
    one, other = (
        edgeprefix.train.load_base(path, precision="bf16").model.state_dict()
        for path in (tmp_path / "model.gguf", checkpoint)
    )
    for parameter, tensor in other.items():
        assert one[parameter].dtype == tensor.dtype, parameter
        assert torch.equal(one[parameter], tensor), parameter


@pytest.mark.parametrize("precision", ["fp32", "as-stored"])
def test_a_big_file_is_exported_module_by_module(
    precision: str, gguf_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = export_decoder(gguf_base, tmp_path / "whole", precision=precision)
    monkeypatch.setattr("edgeprefix.base.gguf.model._STREAM_ABOVE_BYTES", 0)
    streamed = export_decoder(gguf_base, tmp_path / "streamed", precision=precision)
    assert load_base(gguf_base).state is not None
    assert whole.files == streamed.files


def rows(path: Path) -> Path:
    lines = [{"input": f"name: A{n}", "target": f"A{n} eats pasta."} for n in range(8)]
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def test_the_commands_take_it(gguf_base: Path, tmp_path: Path) -> None:
    """train, export decoder, export prefix, verify, compile and run, one after the other."""
    runner, base = CliRunner(), str(gguf_base)
    data, run, bundle = str(rows(tmp_path / "d.jsonl")), str(tmp_path / "run"), str(tmp_path / "b")
    commands = [
        ["train", "--base", base, "--data", data, "--validation", data, "--task", "t", "--out", run,
         "--length", "4", "--steps", "2", "--precision", "fp32"],
        ["export", "decoder", base, "--out", bundle],
        ["export", "prefix", run, "--base", base, "--out", f"{run}/t.safetensors"],
        ["verify", bundle, "--base", base, "--prefix", f"{run}/t.safetensors"],
        ["compile", bundle, "--text", "Ann eats", "--task", "c", "--out", f"{run}/c.safetensors"],
    ]  # fmt: skip
    for command in commands:
        result = runner.invoke(app, command)
        assert result.exit_code == 0, (command, result.output, result.exception)
    assert Manifest.load(bundle).base == find_checkpoint(gguf_base).identity()
    with Engine.load(bundle) as engine:
        for name in ("t", "c"):
            engine.load_prefix(f"{run}/{name}.safetensors")
            assert engine.generate("name: A1", task=name, max_new_tokens=4).tokens


def test_a_prefix_of_the_checkpoint_is_none_of_the_file(gguf_base: Path, tmp_path: Path) -> None:
    """Even when the numbers are the same ones: the file's steps are not the checkpoint's bytes."""
    checkpoint = save_checkpoint(tiny_llama(), tmp_path / "base")
    layers = load_base(checkpoint)
    prefix = Prefix(name="t", base=layers.identity, layers=prefix_layers())
    prefix.save(tmp_path / "t.safetensors")
    with pytest.raises(BaseMismatchError, match=r"but this base is tiny\.gguf"):
        export_prefix(tmp_path / "t.safetensors", tmp_path / "o.safetensors", base=gguf_base)


def prefix_layers() -> Any:
    from edgeprefix.runtime.contracts.prefix_file import PrefixLayer

    zeros = np.zeros((2, 3, 16), np.float32)
    return tuple(PrefixLayer(zeros, zeros) for _ in range(2))


def test_chats_are_written_as_the_file_says(gguf_base: Path) -> None:
    from edgeprefix.train.chat import chat_prompt

    assert chat_prompt(gguf_base) == "<user>{input}\n<assistant>"


def test_optimum_reads_no_such_file(gguf_base: Path, tmp_path: Path) -> None:
    with pytest.raises(EdgePrefixError, match=r"Optimum|pip install 'edgeprefix\[optimum\]'"):
        export_with_optimum(gguf_base, tmp_path / "bundle")


def test_without_the_package_it_is_said_what_to_type(
    gguf_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(MissingExtraError, match=r"type: pip install 'edgeprefix\[gguf\]'"):
        load_base(gguf_base)


def test_checkpoints_do_not_need_the_package(llama_base: Path) -> None:
    code = (
        "import sys; sys.modules['gguf'] = None\n"
        "from edgeprefix.base import load_base\n"
        "load_base(sys.argv[1])"
    )
    subprocess.run([sys.executable, "-c", code, str(llama_base)], check=True)


def test_a_folder_of_gguf_files_is_told_which_to_give(gguf_base: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r"has no config\.json.*; give the file itself, .*tiny\.gguf"
    ):
        load_base(gguf_base.parent)


COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(gguf_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    folder = tmp_path / "hub"
    (folder / "deep").mkdir(parents=True)
    shutil.copy(gguf_base, folder / "tiny.gguf")
    write_gguf(MODELS["llama"](), folder / "deep" / "tiny.Q8_0.gguf", kind="Q8_0")
    with serving(Hub({"main": (COMMIT, folder), COMMIT: (COMMIT, folder)})) as found:
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "ENDPOINT", found.url)
        template = found.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield found


def test_a_file_of_the_hub(hub: Hub, gguf_base: Path) -> None:
    own = find_checkpoint(gguf_base).identity()
    for name in ("org/model/tiny.gguf", "org/model/deep/tiny.Q8_0.gguf"):
        source = find_checkpoint(name)
        assert source.name == name
        assert source.identity().sha256 == own.sha256
    assert set(hub.downloaded) == {"tiny.gguf", "deep/tiny.Q8_0.gguf"}
    with pytest.raises(CheckpointError, match=r"base org/model/none\.gguf is neither on this mach"):
        find_checkpoint("org/model/none.gguf")
    with pytest.raises(CheckpointError, match=r"is on this machine, and revision v1 is one of the"):
        find_checkpoint(gguf_base, revision="v1")


MEMORY = """
import sys
from edgeprefix.base import load_base
import edgeprefix.base.gguf.source, gguf, torch
def peak():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
before = peak()
base = load_base(sys.argv[1], hold=sys.argv[2])
if sys.argv[2] == "streamed":
    with torch.no_grad():
        base.model(torch.arange(2, 20)[None])
print(peak() - before)
"""


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, int]]:
    """Files of 51 million numbers in two kinds."""
    config = {
        "hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 8,
        "num_hidden_layers": 3, "num_key_value_heads": 8,
    }  # fmt: skip
    model, folder = tiny_llama(**config), tmp_path_factory.mktemp("wide")
    for kind in ("BF16", "Q6_K"):
        write_gguf(model, folder / f"{kind}.gguf", kind=kind)
    numbers = sum(parameter.numel() for parameter in model.parameters())
    return {kind: (folder / f"{kind}.gguf", numbers) for kind in ("BF16", "Q6_K")}


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells the peak")
@pytest.mark.parametrize(
    ("kind", "hold", "bytes_each"),
    [("BF16", "stored", 2), ("Q6_K", "bf16", 2), ("Q6_K", "streamed", 0)],
)
def test_what_it_takes_to_load_one(
    kind: str, hold: str, bytes_each: int, wide: dict[str, tuple[Path, int]]
) -> None:
    """The numbers once, as they are held, and the largest matrix; nothing of the file stays."""
    path, numbers = wide[kind]
    result = subprocess.run(
        [sys.executable, "-c", MEMORY, str(path), hold], capture_output=True, text=True, check=True
    )
    taken, largest, modules = int(result.stdout), 3 * 4 * 1024 * 4096, 30 << 20
    allowed = bytes_each * numbers + largest + modules
    assert taken < allowed, f"{taken / 1e6:.0f} MB, {allowed / 1e6:.0f} were allowed"
