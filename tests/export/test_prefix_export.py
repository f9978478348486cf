"""`export prefix`: a run's best prefix as a file of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from edgeprefix.base.identity import checkpoint_identity
from edgeprefix.export import export_prefix
from edgeprefix.export.cli.app import export_app
from edgeprefix.runtime.contracts.prefix_file import Prefix, PrefixLayer
from edgeprefix.runtime.contracts.task_pack import TaskPack
from edgeprefix.runtime.errors import BaseMismatchError, ExportError


@pytest.fixture
def run(llama_base: Path, tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    layers = tuple(
        PrefixLayer(*random.standard_normal((2, 2, 5, 16)).astype(np.float32)) for _ in range(2)
    )
    folder = tmp_path / "run"
    folder.mkdir()
    pack = TaskPack(prompt="{input}\n", labels=("yes", "no"))
    Prefix(name="task", base=checkpoint_identity(llama_base), layers=layers, pack=pack).save(
        folder / "prefix.safetensors"
    )
    return folder


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [("fp32", 0.0), ("fp16", 2e-3), ("bf16", 2e-2), ("int8", 4e-2)]
)
def test_the_numbers_survive(
    run: Path, llama_base: Path, tmp_path: Path, dtype: str, tolerance: float
) -> None:
    exported = export_prefix(run, tmp_path / "task.safetensors", base=llama_base, dtype=dtype)
    read = Prefix.load(tmp_path / "task.safetensors")
    assert (read.name, read.length, read.dtype, read.pack) == ("task", 5, dtype, exported.pack)
    for layer, original in zip(read.layers, exported.layers, strict=True):
        np.testing.assert_allclose(layer.key, original.key, atol=tolerance, rtol=0)
        np.testing.assert_allclose(layer.value, original.value, atol=tolerance, rtol=0)


def test_another_base_is_refused(run: Path, gpt2_base: Path, tmp_path: Path) -> None:
    with pytest.raises(BaseMismatchError, match="'task' belongs to base tiny-llama"):
        export_prefix(run, tmp_path / "task.safetensors", base=gpt2_base)
    assert not (tmp_path / "task.safetensors").exists()


def test_what_is_no_run(tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (tmp_path / "empty").mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    for folder, message in (
        (tmp_path / "nowhere", "no such folder"),
        (tmp_path / "empty", "holds neither prefix.safetensors nor adapter_config.json"),
        (adapter, "PEFT adapter of type None, which is none"),
    ):
        with pytest.raises(ExportError, match=message):
            export_prefix(folder, tmp_path / "task.safetensors")
    with pytest.raises(ExportError, match="dtype 'int3' is unknown"):
        export_prefix(adapter, tmp_path / "task.safetensors", dtype="int3")


def test_a_run_is_not_written_onto(run: Path, tmp_path: Path) -> None:
    """By whatever name: its prefix would be degraded, its other files lost."""
    (run / "last.safetensors").write_bytes(b"what a resume needs")
    (tmp_path / "link").symlink_to(run)
    files = {path.name: path.read_bytes() for path in run.iterdir()}
    for source, out in (
        (run, run / "prefix.safetensors"),
        (run / "prefix.safetensors", run / "prefix.safetensors"),
        (run, tmp_path / "link" / "prefix.safetensors"),
        (tmp_path / "link", run / "prefix.safetensors"),
        (run, run / "last.safetensors"),
    ):
        with pytest.raises(ExportError, match=r"choose another --out"):
            export_prefix(source, out, dtype="int8")
        command = ["prefix", str(source), "--out", str(out), "--dtype", "int8"]
        assert isinstance(CliRunner().invoke(export_app, command).exception, ExportError)
    assert {path.name: path.read_bytes() for path in run.iterdir()} == files
    for _ in range(2):  # an exported prefix may stand there, and be replaced
        export_prefix(run, run / "small.safetensors", dtype="int8")
