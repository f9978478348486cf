"""`export decoder --precision as-stored`: a GGUF file's own numbers in a bundle, of every kind,
equal to torch on the same numbers.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from gguf_files import MODELS, WITH_STEPS, write_gguf

from edgeprefix.export.bundle import export_decoder
from edgeprefix.export.verify import verify
from edgeprefix.runtime.errors import CheckpointError
from tiny import save_checkpoint, tiny_llama

QUICK = ("Q4_K", "Q5_0", "Q6_K")


@pytest.mark.parametrize(
    "kind",
    [pytest.param(k, marks=() if k in QUICK else pytest.mark.slow) for k in WITH_STEPS],
)
def test_the_bundle_computes_with_the_files_numbers(kind: str, tmp_path: Path) -> None:
    write_gguf(MODELS["llama"](), tmp_path / "model.gguf", kind=kind)
    export_decoder(tmp_path / "model.gguf", tmp_path / "bundle", precision="as-stored")
    report = verify(tmp_path / "bundle", tmp_path / "model.gguf")
    assert report.passed, report.to_text()
    assert report.exact is not None
    assert report.exact.relative < 1e-4, report.to_text()


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_every_architecture(name: str, tmp_path: Path) -> None:
    write_gguf(MODELS[name](), tmp_path / "model.gguf", kind="Q4_K")
    export_decoder(tmp_path / "model.gguf", tmp_path / "bundle", precision="as-stored")
    report = verify(tmp_path / "bundle", tmp_path / "model.gguf")
    assert report.exact is not None
    assert report.exact.relative < 1e-4, report.to_text()


def test_a_checkpoint_has_no_numbers_stored_in_few_bits(tmp_path: Path) -> None:
    checkpoint = save_checkpoint(tiny_llama(), tmp_path / "base")
    with pytest.raises(CheckpointError, match="choose the precision int8 or int4"):
        export_decoder(checkpoint, tmp_path / "bundle", precision="as-stored")
    assert not (tmp_path / "bundle").exists()
