"""Prefixes behind each other: keys as torch has them at their new positions, and refusals where
that cannot be.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from bundles import make_prefix, torch_model
from transformers.cache_utils import DynamicCache
from typer.testing import CliRunner

from edgeprefix.cli.compose import compose_app
from edgeprefix.runtime import Engine, Prefix, TaskPack
from edgeprefix.runtime.contracts.manifest import Manifest
from edgeprefix.runtime.contracts.positions import Positions, Rotation
from edgeprefix.runtime.contracts.task_pack import BEGINS
from edgeprefix.runtime.errors import BaseMismatchError, BundleError, OutputError, RequestError
from edgeprefix.runtime.tasks.compose import compose

FIRST, SECOND, PROMPT = "The quick brown fox jumps", " over the lazy dog. Where", " is the café?"


@pytest.fixture(scope="module")
def engine(llama_bundle: Path) -> Engine:
    return Engine.load(llama_bundle, max_batch=1, max_length=96, threads=1)


@pytest.fixture(scope="module")
def parts(engine: Engine) -> tuple[Prefix, Prefix]:
    pack = TaskPack(prompt="{input} ->", labels=("yes", "no"), metrics={"accuracy": 1.0})
    return engine.compile(FIRST, name="first"), engine.compile(SECOND, name="second", pack=pack)


def blocked_logits(base: Path, engine: Engine, ids: list[int]) -> np.ndarray:
    """torch over FIRST and SECOND in one text in which SECOND does not see FIRST, then `ids` seeing
    both: logits [S, V].
    """
    one, two = (engine.tokenizer.encode_prompt(text) for text in (FIRST, SECOND))
    text = [*one, *two, *ids]
    seen = torch.ones(len(text), len(text)).tril().bool()
    seen[len(one) : len(one) + len(two), : len(one)] = False
    mask = torch.where(seen, 0.0, torch.finfo(torch.float32).min)[None, None]
    model = torch_model(base)
    with torch.no_grad():
        logits = model(
            torch.tensor([text]), attention_mask=mask, past_key_values=DynamicCache()
        ).logits[0]
    return logits[-len(ids) :].log_softmax(-1).numpy()


def test_a_composed_prefix_is_one_text_whose_parts_do_not_see_each_other(
    engine: Engine, parts: tuple[Prefix, Prefix], llama_base: Path
) -> None:
    both = compose(parts, engine.manifest, name="both")
    engine.load_prefix(Prefix.from_bytes(both.to_bytes()))
    ids = engine.tokenizer.encode_piece(PROMPT)
    got = engine.next_logprobs(ids, task="both")
    np.testing.assert_allclose(got, blocked_logits(llama_base, engine, ids), atol=2e-5)
    assert both.length == sum(part.length for part in parts)
    assert (both.pack.prompt, both.pack.labels) == ("{input} ->", ("yes", "no"))
    assert both.pack.continues_text
    assert not both.pack.metrics
    assert [source["task"] for source in both.pack.recipe["of"]] == ["first", "second"]


def test_composition_is_associative(engine: Engine, parts: tuple[Prefix, Prefix]) -> None:
    first, second = parts
    at_once = compose([first, second, first], engine.manifest, name="three")
    later = compose(
        [compose(parts, engine.manifest, name="both"), first], engine.manifest, name="three"
    )
    earlier = compose(
        [first, compose([second, first], engine.manifest, name="both")],
        engine.manifest,
        name="three",
    )
    for other in (later, earlier):
        for one, two in zip(at_once.layers, other.layers, strict=True):
            np.testing.assert_allclose(one.key, two.key, atol=2e-6 * np.abs(one.key).max())
            np.testing.assert_array_equal(one.value, two.value)


def test_a_begin_token_in_the_middle_is_dropped(engine: Engine) -> None:
    begin = engine.manifest.begin_id
    ids = engine.tokenizer.encode_piece(SECOND)
    first, second = (
        engine.compile([begin, 7, 8], name="first"),
        engine.compile([begin, *ids], name="second"),
    )
    assert first.pack.recipe[BEGINS]
    assert not engine.compile(ids, name="second").pack.recipe[BEGINS]
    dropped = compose([first, second], engine.manifest, name="both")
    kept = compose([first, second], engine.manifest, name="both", keep_begin=True)
    assert (dropped.length, kept.length) == (3 + len(ids), 4 + len(ids))
    np.testing.assert_array_equal(dropped.layers[1].value[:, 3:], second.layers[1].value[:, 1:])
    # What stood at position 1 now stands at 3, and with the begin token kept at 4.
    rotation = engine.manifest.positions.rotation(1)  # type: ignore[union-attr]
    np.testing.assert_allclose(
        dropped.layers[1].key[:, 3:], rotation.turn(second.layers[1].key, 2)[:, 1:]
    )
    np.testing.assert_allclose(kept.layers[1].key[:, 3:], rotation.turn(second.layers[1].key, 3))
    assert dropped.pack.recipe[BEGINS]  # so that it can be the second of another one


def test_what_cannot_be_composed(
    engine: Engine, parts: tuple[Prefix, Prefix], gpt2_bundle: Path
) -> None:
    manifest, gpt2 = engine.manifest, Manifest.load(gpt2_bundle)
    with pytest.raises(RequestError, match=r"compose takes two prefixes or more, got 1"):
        compose(parts[:1], manifest, name="both")
    with pytest.raises(BaseMismatchError, match="prefix 'first' belongs to base"):
        compose(parts, gpt2, name="both")
    learned = [make_prefix(gpt2, name, 3) for name in ("a", "b")]
    with pytest.raises(
        RequestError,
        match=r"tiny-gpt2 \(gpt2\) cannot be composed: positions are added to the text",
    ):
        compose(learned, gpt2, name="both")
    old = dataclasses.replace(manifest, positions=None)
    with pytest.raises(
        RequestError, match="does not say what positions do to its keys.*export it again"
    ):
        compose(parts, old, name="both")
    longrope = dataclasses.replace(manifest, positions=Positions(kind="by-length"))
    with pytest.raises(RequestError, match="depend on how long the text is"):
        compose(parts, longrope, name="both")
    short = dataclasses.replace(manifest, max_positions=sum(part.length for part in parts))
    with pytest.raises(RequestError, match="none would be left for text; compose shorter ones"):
        compose(parts, short, name="both")


def test_the_manifest_keeps_positions(llama_bundle: Path) -> None:
    manifest = Manifest.load(llama_bundle)
    assert manifest.positions is not None
    assert manifest.positions.layers == (0, 0)
    data = json.loads((llama_bundle / "manifest.json").read_text())
    assert (
        Manifest.from_json(
            {key: value for key, value in data.items() if key != "positions"}
        ).positions
        is None
    )
    for broken in ({"kind": "sideways"}, {"layers": [0]}, {"layers": [0, 7]}, {"rotations": [{}]}):
        with pytest.raises(BundleError, match="is not a valid manifest"):
            Manifest.from_json(data | {"positions": data["positions"] | broken})


def test_turning_there_and_back(engine: Engine) -> None:
    key = np.random.default_rng(0).standard_normal((2, 5, 12)).astype(np.float32)
    for interleaved in (False, True):
        rotation = Rotation(frequencies=(1.0, 0.1, 0.01, 0.0), interleaved=interleaved)
        turned = rotation.turn(key, 40)
        np.testing.assert_array_equal(turned[..., 8:], key[..., 8:])  # 8 of 12 are turned
        np.testing.assert_allclose(
            np.linalg.norm(turned, axis=-1), np.linalg.norm(key, axis=-1), rtol=1e-6
        )
        np.testing.assert_allclose(rotation.turn(turned, -40), key, atol=1e-6)


def test_the_command(llama_bundle: Path, parts: tuple[Prefix, Prefix], tmp_path: Path) -> None:
    files = [tmp_path / f"{part.name}.safetensors" for part in parts]
    for file, part in zip(files, parts, strict=True):
        part.save(file)
    out, runner = tmp_path / "both.safetensors", CliRunner()
    command = [*map(str, files), "--bundle", str(llama_bundle), "--task", "both", "--out", str(out)]
    done = runner.invoke(compose_app, [*command, "--dtype", "fp16"])
    assert done.exit_code == 0, done.output
    lengths = [part.length for part in parts]
    assert f"first {lengths[0]} + second {lengths[1]} = {sum(lengths)} positions" in " ".join(
        done.stderr.split()
    )
    assert Prefix.load(out).dtype == "fp16"
    assert isinstance(runner.invoke(compose_app, command).exception, OutputError)
    assert runner.invoke(compose_app, [str(files[0]), *command[2:]]).exit_code == 2
