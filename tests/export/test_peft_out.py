"""PEFT out: a prefix as an adapter folder that peft loads and generates the same with."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from peft_side import (
    KINDS,
    MARKED_FAMILIES,
    Family,
    P,
    assert_same,
    family_of,
    load_adapter,
    train_adapter,
)
from safetensors.torch import load_file

from edgeprefix.export.formats.peft import write_peft
from edgeprefix.export.formats.writers import write_prefix
from edgeprefix.export.prefix import read_prefix
from edgeprefix.runtime.contracts.prefix_file import Prefix, PrefixLayer
from edgeprefix.runtime.contracts.task_pack import TaskPack
from edgeprefix.runtime.errors import ExportError, OutputError

pytestmark = pytest.mark.filterwarnings(
    "ignore:Position ids are not supported", "ignore:.*gradient_checkpointing"
)


@pytest.fixture(scope="module", params=MARKED_FAMILIES)
def family(request: pytest.FixtureRequest) -> Family:
    return family_of(request.param, request)


@pytest.fixture
def prefix(family: Family) -> Prefix:
    """The base's own keys and values over a text, a little off."""
    compiled = family.engine.compile("The parcel never came.", name="mail")
    noise = np.random.default_rng(0)
    layers = tuple(
        PrefixLayer(
            *((part + 0.3 * noise.standard_normal(part.shape)).astype(np.float32) for part in layer)
        )
        for layer in compiled.layers
    )
    return dataclasses.replace(compiled, layers=layers)


def test_peft_generates_the_same(family: Family, prefix: Prefix, tmp_path: Path) -> None:
    write_peft(prefix, tmp_path / "adapter", str(family.base))
    assert_same(family, prefix, load_adapter(family.base, tmp_path / "adapter"))


def test_out_and_in_again_is_the_same_prefix(
    family: Family, prefix: Prefix, tmp_path: Path
) -> None:
    write_peft(prefix, tmp_path / "mail", str(family.base))
    again = read_prefix(tmp_path / "mail")
    assert (again.name, again.base) == (prefix.name, prefix.base)
    for ours, theirs in zip(prefix.layers, again.layers, strict=True):
        np.testing.assert_array_equal(ours.key, theirs.key)
        np.testing.assert_array_equal(ours.value, theirs.value)


def test_in_and_out_again_is_the_same_adapter(family: Family, tmp_path: Path) -> None:
    adapter = train_adapter(family.base, KINDS["prefix"](), tmp_path / "in", steps=2)
    write_peft(read_prefix(adapter), tmp_path / "out", str(family.base))
    first, second = (
        load_file(tmp_path / name / "adapter_model.safetensors") for name in ("in", "out")
    )
    assert list(first) == list(second) == ["prompt_embeddings"]
    assert first["prompt_embeddings"].equal(second["prompt_embeddings"])
    theirs, ours = (
        json.loads((tmp_path / name / "adapter_config.json").read_text()) for name in ("in", "out")
    )
    assert ours.items() <= (theirs | {"encoder_hidden_size": ours["encoder_hidden_size"]}).items()


def plain_prefix(
    family: Family, *, widths: tuple[int, int] = (16, 16), pack: TaskPack | None = None
) -> Prefix:
    """Two layers of given head sizes."""
    layers = tuple(PrefixLayer(*np.ones((2, 2, P, width), np.float32)) for width in widths)
    base = family.engine.manifest.base
    return Prefix(name="mail", base=base, layers=layers, pack=pack or TaskPack())


def test_what_peft_cannot_say(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    llama = family_of("llama", request)
    with pytest.raises(
        ExportError, match="layer 1 has keys of 2 heads of 8, layer 0 has keys of 2 heads of 16"
    ):
        write_peft(plain_prefix(llama, widths=(16, 8)), tmp_path / "adapter", "base")
    assert not (tmp_path / "adapter").exists()


def test_the_card_has_the_rest_of_the_task_pack(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    llama = family_of("llama", request)
    pack = TaskPack(
        prompt="{input}\n",
        labels=("yes", "no"),
        stop=("\n",),
        licence="CC0-1.0",
        continues_text=True,
    )
    write_peft(plain_prefix(llama, pack=pack), tmp_path / "adapter", "org/base")
    card = (tmp_path / "adapter" / "README.md").read_text()
    for fact in (
        'base_model: "org/base"',
        '`"{input}\\n"`',
        "yes, no",
        '["\\n"]',
        "CC0-1.0",
        "add_special_tokens=False",
    ):
        assert fact in card
    with pytest.raises(OutputError, match="exists already"):
        write_peft(plain_prefix(llama), tmp_path / "adapter", "org/base")
    write_peft(plain_prefix(llama), tmp_path / "adapter", "org/other", force=True)
    assert "org/other" in (tmp_path / "adapter" / "README.md").read_text()


def test_force_leaves_what_somebody_else_wrote(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Chapters of a thesis, and an adapter that PEFT itself saved."""
    prefix, thesis = plain_prefix(family_of("llama", request)), tmp_path / "thesis"
    (thesis / "chapters").mkdir(parents=True)
    (thesis / "chapters" / "one.tex").write_text("years")
    with pytest.raises(OutputError, match=r"thesis holds chapters/one\.tex, which"):
        write_prefix(prefix, thesis, format="peft", base="org/base", force=True)
    assert (thesis / "chapters" / "one.tex").read_text() == "years"

    write_prefix(prefix, tmp_path / "adapter", format="peft", force=True)
    (tmp_path / "adapter" / "README.md").write_text("# my adapter, trained with PEFT")
    with pytest.raises(OutputError, match=r"adapter holds README\.md, adapter_config\.json"):
        write_prefix(prefix, tmp_path / "adapter", format="peft", force=True)
