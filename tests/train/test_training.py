"""The invariant of training: the prefix moved, the base is bit-identical, the loss fell, the file
gives the same logits.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from rows import label_rows, record_rows
from transformers import PreTrainedModel

from edgeprefix.base.identity import checkpoint_identity
from edgeprefix.runtime.contracts.prefix_file import Prefix
from edgeprefix.runtime.errors import BaseMismatchError, TrainingError
from edgeprefix.train import (
    FrozenModel,
    PrefixConfig,
    Progress,
    TrainConfig,
    TrainResult,
    load_base,
    train_prefix,
)
from edgeprefix.train.batches import collate
from edgeprefix.train.data import encode_example, load_data
from edgeprefix.train.evaluate import label_log_likelihoods
from edgeprefix.train.initialise import start_prefix
from edgeprefix.train.objective import Objective
from edgeprefix.train.record import RunFolder
from edgeprefix.train.tensorboard import mirrored
from edgeprefix.train.units import measure_units
from tiny import save_checkpoint, tiny_gpt2, tiny_llama, tiny_mistral

PROMPT = "{input} ->"
QUICK = TrainConfig(
    steps=30, lr=0.3, batch_size=8, precision="fp32", validate_every=10, log_every=5
)


def quick(
    base: Path, out: Path, *, prefix: PrefixConfig | None = None, train: TrainConfig = QUICK
) -> TrainResult:
    return train_prefix(
        base,
        record_rows(),
        record_rows(8, start=100),
        task="cities",
        out=out,
        prompt=PROMPT,
        train=train,
        prefix=prefix or PrefixConfig(length=6),
    )


def tensors(path: Path) -> list[np.ndarray]:
    return [array for layer in Prefix.load(path).layers for array in layer]


@pytest.mark.parametrize(
    "make",
    [tiny_llama, tiny_gpt2, lambda: tiny_mistral(window=48)],
    ids=["llama", "gpt2", "window"],
)
def test_the_prefix_moves_the_base_stays_the_loss_falls(
    make: Callable[[], PreTrainedModel], tmp_path: Path
) -> None:
    folder = save_checkpoint(make(), tmp_path / "base")
    base = load_base(folder, precision="fp32")
    before = {key: tensor.clone() for key, tensor in base.model.state_dict().items()}
    seen: list[Progress] = []
    result = train_prefix(
        base,
        record_rows(),
        record_rows(8, start=100),
        task="cities",
        out=tmp_path / "run",
        prompt=PROMPT,
        prefix=PrefixConfig(length=6, init="random"),
        train=QUICK,
        progress=seen.append,
    )

    # 1. The base is bit-identical, in memory and on disk.
    for key, tensor in base.model.state_dict().items():
        assert torch.equal(tensor, before[key]), key
    assert checkpoint_identity(folder).sha256 == result.base.sha256

    # 2. The prefix moved away from its start, in every layer.
    data = load_data(
        record_rows(),
        record_rows(8, start=100),
        tokenizer=base.tokenizer,
        prompt=PROMPT,
        max_tokens=250,
    )
    units = measure_units(base, data.train, length=6, seed=0)
    start = start_prefix(
        base,
        PrefixConfig(length=6, init="random"),
        length=6,
        examples=data.train,
        units=units,
        seed=0,
    )
    for (key, value), layer in zip(start, Prefix.load(result.prefix_path).layers, strict=True):
        assert np.abs(layer.key - key.numpy()).max() > 1e-3
        assert np.abs(layer.value - value.numpy()).max() > 1e-3

    # 3. The loss fell.
    assert result.validation_loss < 0.8 * result.base_validation_loss
    assert [step.step for step in seen] == list(range(1, 31))
    assert seen[-1].loss < seen[0].loss

    # 4. The saved file gives the logits that were validated.
    prefix = [
        (torch.from_numpy(layer.key), torch.from_numpy(layer.value))
        for layer in Prefix.load(result.prefix_path).layers
    ]
    batch = collate(data.validation)
    loss = torch.nn.functional.cross_entropy(
        base.logits(prefix, batch.ids, batch.rows), batch.targets
    )
    assert float(loss) == pytest.approx(result.validation_loss, rel=1e-5)


def test_the_prefix_file_is_all_that_a_task_needs(llama_base: Path, tmp_path: Path) -> None:
    result = quick(llama_base, tmp_path / "run")
    prefix = Prefix.load(result.prefix_path)
    assert (prefix.name, prefix.length, prefix.pack.prompt) == ("cities", 6, PROMPT)
    assert prefix.base.sha256 == checkpoint_identity(llama_base).sha256
    assert prefix.pack.metrics["validation_loss"] == result.validation_loss
    assert prefix.pack.recipe["plan"]["steps"] == 30
    assert prefix.pack.generation.max_new_tokens is not None
    assert prefix.pack.generation.max_new_tokens > result.report.target_tokens[2]


def test_the_run_folder_tells_the_whole_story(llama_base: Path, tmp_path: Path) -> None:
    result = quick(llama_base, tmp_path / "run")
    run = tmp_path / "run"
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [5, 10, 15, 20, 25, 30]
    assert all({"loss", "lr", "tokens_per_s"} <= set(line) for line in lines if "loss" in line)
    assert [line["step"] for line in lines if "validation_loss" in line] == [10, 20, 30]
    facts = json.loads((run / "run.json").read_text())
    assert facts["data"]["train_rows"] == 40
    assert facts["result"]["validation_loss"] == result.validation_loss
    assert facts["settings"]["train"]["seed"] == 0
    assert (run / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in run.iterdir()) == [
        "curve.png", "last.safetensors", "metrics.jsonl", "prefix.safetensors", "run.json",
    ]  # fmt: skip


def test_one_seed_gives_one_result_and_another_seed_another(
    llama_base: Path, tmp_path: Path
) -> None:
    short = TrainConfig(steps=6, lr=0.3, batch_size=8, precision="fp32")
    first = quick(llama_base, tmp_path / "a", train=short)
    again = quick(llama_base, tmp_path / "b", train=short)
    other = quick(
        llama_base,
        tmp_path / "c",
        train=TrainConfig(steps=6, lr=0.3, batch_size=8, precision="fp32", seed=1),
    )
    assert first.prefix_path.read_bytes() == again.prefix_path.read_bytes()
    assert first.prefix_path.read_bytes() != other.prefix_path.read_bytes()


@pytest.mark.parametrize(
    "config",
    [
        PrefixConfig(length=6, reparam=True, mlp_width=32),
        PrefixConfig(length=6, init="text"),
        PrefixConfig(length=6, init="text", init_text="name and city to sentence:"),
        PrefixConfig(length=6, init="vocab"),
        PrefixConfig(length=6, dropout=0.1),
    ],
    ids=["mlp", "training-rows", "text", "vocab", "dropout"],
)
def test_every_parametrisation_and_start_learns(
    llama_base: Path, tmp_path: Path, config: PrefixConfig
) -> None:
    lr = 0.02 if config.reparam else 0.3
    result = quick(
        llama_base,
        tmp_path / "run",
        prefix=config,
        train=TrainConfig(steps=30, lr=lr, precision="fp32"),
    )
    assert result.validation_loss < 0.9 * result.base_validation_loss


@pytest.mark.parametrize("reparam", [False, True])
def test_a_frozen_sink_stays_where_it_was_initialised(
    llama_base: Path, tmp_path: Path, reparam: bool
) -> None:
    config = PrefixConfig(
        length=4, init="text", init_text="the river and the fox", sink=True, reparam=reparam
    )
    result = quick(llama_base, tmp_path / "run", prefix=config)
    base = load_base(llama_base, precision="fp32")
    start = base.key_values(base.tokenizer.encode_prompt("the river and the fox")[:4])
    for (key, value), layer in zip(start, Prefix.load(result.prefix_path).layers, strict=True):
        np.testing.assert_allclose(layer.key[:, 0], key[:, 0].numpy(), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(layer.value[:, 0], value[:, 0].numpy(), rtol=1e-5, atol=1e-6)
        assert np.abs(layer.key[:, 1:] - key[:, 1:].numpy()).max() > 1e-3


def test_training_goes_on_from_a_prefix_file_of_the_same_base_only(
    llama_base: Path, gpt2_base: Path, tmp_path: Path
) -> None:
    first = quick(llama_base, tmp_path / "first")
    follow = PrefixConfig(init=str(first.prefix_path))
    second = quick(
        llama_base,
        tmp_path / "second",
        prefix=follow,
        train=TrainConfig(steps=1, lr=1e-6, precision="fp32"),
    )
    assert second.plan.length == 6
    for old, new in zip(tensors(first.prefix_path), tensors(second.prefix_path), strict=True):
        np.testing.assert_allclose(new, old, atol=1e-4)
    with pytest.raises(BaseMismatchError, match="belongs to base tiny-llama"):
        quick(gpt2_base, tmp_path / "third", prefix=follow)


def test_labels_are_trained_and_measured_by_likelihood(llama_base: Path, tmp_path: Path) -> None:
    for objective in ("target", "labels"):
        result = train_prefix(
            llama_base,
            label_rows(),
            label_rows(20, start=200),
            task="help",
            out=tmp_path / objective,
            prompt="{input} ->",
            labels=["yes", "no"],
            prefix=PrefixConfig(length=6),
            train=TrainConfig(
                steps=80,
                lr=0.3,
                batch_size=8,
                precision="fp32",
                objective=objective,
                prompt_dropout=0.0,
            ),
        )
        assert result.metric_name == "accuracy"
        assert result.metric >= 0.9, objective
        assert Prefix.load(result.prefix_path).pack.labels == ("yes", "no")


def test_accumulated_gradients_equal_one_large_batch(llama_base: Path, tmp_path: Path) -> None:
    whole = TrainConfig(steps=3, lr=0.3, batch_size=40, precision="fp32")
    parts = TrainConfig(steps=3, lr=0.3, batch_size=10, accumulation=4, precision="fp32")
    first = quick(llama_base, tmp_path / "a", train=whole)
    second = quick(llama_base, tmp_path / "b", train=parts)
    for one, other in zip(tensors(first.prefix_path), tensors(second.prefix_path), strict=True):
        # Adam divides by tiny gradients, which magnifies rounding
        np.testing.assert_allclose(one, other, atol=2e-3)


def test_windows_that_slide_past_the_prefix_are_told(mistral_base: Path, tmp_path: Path) -> None:
    result = quick(mistral_base, tmp_path / "run", train=TrainConfig(steps=1, precision="fp32"))
    assert any("sees at most 12 positions" in line for line in result.report.warnings())


def test_patience_stops_a_run_that_gains_nothing(llama_base: Path, tmp_path: Path) -> None:
    config = TrainConfig(
        steps=500, lr=1e-9, batch_size=4, precision="fp32", validate_every=1, patience=2
    )
    result = quick(llama_base, tmp_path / "run", train=config)
    assert result.steps < 100


def test_bf16_training_lowers_the_loss_too(llama_base: Path, tmp_path: Path) -> None:
    config = TrainConfig(steps=20, lr=0.3, batch_size=8, precision="bf16")
    result = quick(llama_base, tmp_path / "run", train=config)
    assert result.validation_loss < 0.9 * result.base_validation_loss


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PrefixConfig(length=0), "length=0: expected a whole number, at least 1"),
        (
            lambda: PrefixConfig(init="zeros"),
            "init='zeros': expected auto, text, vocab, random or a prefix file",
        ),
        (lambda: PrefixConfig(init="random", init_text="x"), "goes with init 'text' only"),
        (
            lambda: PrefixConfig(dropout=1.0),
            "dropout=1.0: expected a number, at least 0 and below 1",
        ),
        (lambda: PrefixConfig(length=1, sink=True), "leaves nothing to train"),
        (lambda: TrainConfig(steps=1, epochs=1), "both steps and epochs were given"),
        (lambda: TrainConfig(lr=0), "lr=0: expected a number, above 0"),
        (lambda: TrainConfig(warmup=1.0), "warmup=1.0: expected"),
        (lambda: TrainConfig(prompt_dropout=1.0), "prompt_dropout=1.0: expected"),
        (
            lambda: TrainConfig(metric="f1"),
            "metric='f1': expected one of loss, accuracy, bleu, exact, kl",
        ),
        (lambda: TrainConfig(objective="x"), "objective='x': expected one of auto, target"),
    ],
)
def test_settings_that_cannot_be_are_refused(make: object, message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        make()  # type: ignore[operator]


def test_tensorboard_is_closed_behind_a_run(tmp_path: Path) -> None:
    """Its writer has a thread and a file, which a second training in the process would find."""
    before = {thread.ident for thread in threading.enumerate()}
    run = RunFolder(tmp_path)
    with pytest.raises(ZeroDivisionError), mirrored(run, wanted=True):
        run.add_metrics({"step": 1, "loss": 2.0})
        assert {thread.ident for thread in threading.enumerate()} > before
        raise ZeroDivisionError
    assert {thread.ident for thread in threading.enumerate()} <= before
    run.add_metrics({"step": 2, "loss": 1.0})
    assert len([*run.tensorboard_path.iterdir()]) == 1


def test_tensorboard_gets_what_metrics_jsonl_gets(llama_base: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = tmp_path / "run"
    train_prefix(
        llama_base,
        record_rows(24),
        task="t",
        out=run,
        prefix=PrefixConfig(length=4),
        train=TrainConfig(
            steps=4, batch_size=4, precision="fp32", log_every=2, validate_every=2, tensorboard=True
        ),
    )
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for name in ("loss", "validation_loss"):
        expected = [
            (line["step"], pytest.approx(line[name], rel=1e-6)) for line in lines if name in line
        ]
        assert [(event.step, event.value) for event in events.Scalars(name)] == expected
        assert len(expected) == 2


def test_what_was_chosen_stands_in_the_prefix_file(llama_base: Path, tmp_path: Path) -> None:
    rows = record_rows(100)
    result = train_prefix(
        llama_base, rows, rows[:4], task="t", out=tmp_path / "run", prefix=PrefixConfig(length=4),
        train=TrainConfig(steps=1, batch_size=2, validation_rows=2),
    )  # fmt: skip
    recipe = Prefix.load(result.prefix_path).pack.recipe
    assert recipe["prefix"]["init"] == recipe["plan"]["init"] == result.plan.init != "auto"
    assert recipe["choice"]["init"] == result.plan.init
    assert recipe["plan"]["dropout"] == result.plan.dropout == 0.17


def validations(run: Path, name: str) -> list[tuple[int, float]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [(line["step"], line[name]) for line in lines if name in line]


def test_a_tie_is_no_gain_and_the_first_of_equals_is_kept(llama_base: Path, tmp_path: Path) -> None:
    """At a rate of nothing every validation is the same to the bit: patience counts from the
    first.
    """
    config = TrainConfig(
        steps=20, lr=1e-30, batch_size=4, precision="fp32", validate_every=1, patience=3
    )
    result = quick(llama_base, tmp_path / "run", train=config)
    measured = validations(tmp_path / "run", "validation_loss")
    assert len({loss for _, loss in measured}) == 1
    assert (result.steps, result.best_step) == (1 + config.patience, 1)


def test_between_equal_metrics_the_lower_loss_is_kept(llama_base: Path, tmp_path: Path) -> None:
    """No answer is exact in a few steps, so that the metric stays at nothing while the loss
    falls.
    """
    config = dataclasses.replace(QUICK, steps=6, validate_every=2, metric="exact")
    result = quick(llama_base, tmp_path / "run", train=config)
    losses = dict(validations(tmp_path / "run", "validation_loss"))
    assert {value for _, value in validations(tmp_path / "run", "exact")} == {0.0}
    assert result.best_step == min(losses, key=lambda step: losses[step]) > 2
    assert result.validation_loss == losses[result.best_step]


def test_patience_counts_validations_since_the_best(llama_base: Path, tmp_path: Path) -> None:
    """Told again from the numbers of a run whose loss goes up and down."""
    config = TrainConfig(
        steps=400,
        lr=8.0,
        batch_size=2,
        precision="fp32",
        validate_every=1,
        validation_rows=4,
        patience=2,
    )
    start = PrefixConfig(length=6, init="random")
    result = quick(llama_base, tmp_path / "run", prefix=start, train=config)
    measured = validations(tmp_path / "run", "validation_loss")
    best, best_step, without = float("inf"), 0, [0]
    for step, loss in measured:
        without.append(0 if loss < best else without[-1] + 1)
        if loss < best:
            best, best_step = loss, step
    assert without[-1] == 2
    assert 2 not in without[:-1]
    assert 1 in without[:-2], "no gain made patience count anew: take another rate"
    assert (result.steps, result.best_step) == (measured[-1][0], best_step)


@pytest.mark.parametrize("name", ["target", "labels"])
def test_label_smoothing_asks_for_a_little_of_everything(llama: FrozenModel, name: str) -> None:
    """(1 - s) of the loss, and s of the mean over all tokens, or all labels."""
    labels = ("yes", "no", "maybe")
    examples = [encode_example(llama.tokenizer, text, "no") for text in ("a", "the river")]
    prefix = llama.key_values([5, 6, 7])

    def loss(smoothing: float) -> float:
        objective = Objective(
            base=llama, name=name, metric_name="loss", labels=labels, label_smoothing=smoothing
        )
        with torch.no_grad():
            return float(objective.loss(prefix, examples))

    encoded = [llama.tokenizer.encode_target(label) for label in labels]
    batch = collate(examples)
    with torch.no_grad():
        logits = (
            llama.logits(prefix, batch.ids, batch.rows)
            if name == "target"
            else label_log_likelihoods(llama, prefix, [e.prompt for e in examples], encoded)
        )
    everything = -float(logits.log_softmax(-1).mean())
    assert loss(0.2) == pytest.approx(0.8 * loss(0.0) + 0.2 * everything, rel=1e-5)
    assert abs(loss(0.2) - loss(0.0)) > 1e-3


def test_label_smoothing_reaches_the_loop(llama_base: Path, tmp_path: Path) -> None:
    first = []
    for smoothing in (0.0, 0.5):
        config = dataclasses.replace(QUICK, steps=1, log_every=1, label_smoothing=smoothing)
        quick(llama_base, tmp_path / str(smoothing), train=config)
        lines = (tmp_path / str(smoothing) / "metrics.jsonl").read_text().splitlines()
        first.append(json.loads(lines[0])["loss"])
    assert abs(first[0] - first[1]) > 1e-3


def test_a_result_needs_no_matplotlib(
    llama_base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The package is missing when the curve is to be drawn: the result stands, and a line says
    so.
    """
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    run = tmp_path / "run"
    result = quick(llama_base, run, train=dataclasses.replace(QUICK, steps=1))
    assert json.loads((run / "run.json").read_text())["result"]["steps"] == result.steps == 1
    assert not (run / "curve.png").exists()
    assert "matplotlib is not installed; type: pip install 'edgeprefix[train]'" in caplog.text
