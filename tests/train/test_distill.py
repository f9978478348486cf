"""A long text pressed into a short prefix, and prompt tuning."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from rows import record_rows
from tokenizers import Tokenizer, processors

from edgeprefix.runtime.contracts.prefix_file import Prefix
from edgeprefix.runtime.errors import TrainingError
from edgeprefix.train import (
    FrozenModel,
    PrefixConfig,
    TrainConfig,
    TrainResult,
    load_base,
    train_prefix,
)
from edgeprefix.train.data import encode_example
from edgeprefix.train.distill import Teacher, divergence, teacher_divergence
from edgeprefix.train.record import RunFolder
from tiny import save_checkpoint, tiny_llama

TEXT = "name: Ann | city: Rome | food: pasta | price: cheap -> Ann eats cheap pasta in Rome. " * 2
CONFIG = TrainConfig(steps=25, lr=0.3, batch_size=8, precision="fp32")


def distil(base: Path | FrozenModel, out: Path, **changes: object) -> TrainResult:
    settings: dict[str, object] = {
        "teacher": TEXT,
        "prefix": PrefixConfig(length=6),
        "train": CONFIG,
    }
    return train_prefix(
        base,
        record_rows(),
        record_rows(8, start=100),
        task="pressed",
        out=out,
        prompt="{input} ->",
        **(settings | changes),  # type: ignore[arg-type]
    )


def test_the_prefix_comes_nearer_to_the_teacher(llama_base: Path, tmp_path: Path) -> None:
    result = distil(llama_base, tmp_path / "run")
    assert (result.plan.objective, result.metric_name) == ("distill", "kl")
    assert result.metric < 0.8 * result.base_metric
    assert Prefix.load(result.prefix_path).pack.recipe["teacher_tokens"] > 30


def test_the_teachers_own_keys_and_values_diverge_by_nothing(
    llama: FrozenModel, tmp_path: Path
) -> None:
    teacher = Teacher(llama, TEXT)
    examples = [
        encode_example(llama.tokenizer, row["input"], row["target"]) for row in record_rows(5)
    ]
    teacher.prepare(examples, RunFolder(tmp_path))
    exact = llama.key_values(llama.tokenizer.encode_prompt(TEXT))
    assert exact[0][0].shape[1] == teacher.tokens
    assert teacher_divergence(llama, exact, examples, teacher) == pytest.approx(0, abs=1e-5)
    assert teacher_divergence(llama, [], examples, teacher) > 1e-3


def test_the_divergence_is_at_most_the_one_over_all_tokens() -> None:
    generator = torch.Generator().manual_seed(0)
    teacher = torch.randn(5, 50, generator=generator).mul(2).log_softmax(-1)
    student = torch.randn(5, 50, generator=generator)
    whole = (teacher.exp() * (teacher - student.log_softmax(-1))).sum(-1).mean()
    top, ids = teacher.topk(20, dim=-1)
    assert 0 < float(divergence(student, ids, top)) <= float(whole)
    every, all_ids = teacher.topk(49, dim=-1)
    assert float(divergence(student, all_ids, every)) == pytest.approx(float(whole), rel=1e-3)


def test_the_teachers_file_is_read_again_and_only_for_the_same_rows(
    llama: FrozenModel, tmp_path: Path
) -> None:
    run = RunFolder(tmp_path)
    path = run.teacher_path
    examples = [
        encode_example(llama.tokenizer, row["input"], row["target"]) for row in record_rows(5)
    ]
    first = Teacher(llama, TEXT)
    first.prepare(examples, run)
    computed: list[int] = []
    again = Teacher(llama, TEXT)
    again.prepare(examples, run, lambda done, _: computed.append(done))
    assert not computed
    for one, other in zip(first.targets(examples), again.targets(examples), strict=True):
        assert torch.equal(one, other)
    Teacher(llama, TEXT + "!").prepare(examples, run, lambda done, _: computed.append(done))
    assert computed
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(TrainingError, match=r"teacher\.safetensors cannot be read: .*; delete it"):
        Teacher(llama, TEXT).prepare(examples, run)


def test_a_teacher_on_other_numbers_is_computed_anew(llama_base: Path, tmp_path: Path) -> None:
    """Rounded weights and another precision give other answers for the same text and rows, in one
    folder too.
    """
    bases = [
        load_base(llama_base, precision=precision, weights=weights)
        for precision, weights in [("fp32", "checkpoint"), ("fp32", "int4"), ("bf16", "checkpoint")]
    ]
    bases.append(dataclasses.replace(bases[0], route="cache"))
    examples = [encode_example(bases[0].tokenizer, "name: Ann", "Ann lives here.")]
    for number, base in enumerate(bases[1:]):
        fresh, kept = Teacher(base, TEXT), Teacher(base, TEXT)
        fresh.prepare(examples, RunFolder(tmp_path / f"fresh{number}"))
        run = RunFolder(tmp_path / f"kept{number}")
        Teacher(bases[0], TEXT).prepare(examples, run)
        kept.prepare(examples, run)
        for one, other in zip(fresh.targets(examples), kept.targets(examples), strict=True):
            assert torch.equal(one, other), (base.weights, base.precision, base.route)


@pytest.mark.parametrize("text", [TEXT, "x"], ids=["a text", "one token"])
@pytest.mark.parametrize("prompt", ["name: Bob", ""], ids=["a prompt", "no prompt"])
def test_the_teacher_reads_one_text_with_one_begin_token(
    tmp_path: Path, text: str, prompt: str
) -> None:
    """Its answers are those of the base over begin token, text, prompt and target in a row."""
    base = base_with_begin_token(tmp_path / "base")
    tokens = base.tokenizer
    assert tokens.encode_prompt("x") == [1, *tokens.encode_piece("x"), 1, 1]
    example = encode_example(tokens, prompt, "Bob lives here.")
    example = dataclasses.replace(example, prompt=example.prompt[:-2])  # as a generation begins
    teacher = Teacher(base, text)
    teacher.prepare([example], RunFolder(tmp_path))
    before = [1, *tokens.encode_piece(text), *tokens.encode_piece(prompt)]
    with torch.no_grad():
        logits = base.logits([], torch.tensor([[*before, *example.target]]))
    expected = logits[len(before) - 1 : -1].log_softmax(-1)
    ids, logs = teacher.targets([example])
    torch.testing.assert_close(logs, expected.gather(1, ids), rtol=1e-4, atol=1e-4)


def base_with_begin_token(folder: Path) -> FrozenModel:
    """Its tokenizer puts <|pad|> before a prompt and twice behind it."""
    save_checkpoint(tiny_llama(), folder)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|pad|> $A <|pad|> <|pad|>", special_tokens=[("<|pad|>", 1)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    return load_base(folder, precision="fp32")


def test_what_distilling_needs_is_said(llama_base: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="need a teacher; give --teacher-text"):
        distil(
            llama_base,
            tmp_path / "a",
            teacher=None,
            train=dataclasses.replace(CONFIG, objective="distill"),
        )
    with pytest.raises(TrainingError, match="the teacher text is empty"):
        distil(llama_base, tmp_path / "b", teacher="")
    with pytest.raises(
        TrainingError, match="the teacher text has .* tokens, the base has 256 positions"
    ):
        distil(llama_base, tmp_path / "c", teacher=TEXT * 20)


def test_prompt_tuning_is_saved_as_the_bases_keys_and_values(
    llama_base: Path, tmp_path: Path
) -> None:
    base = load_base(llama_base, precision="fp32")
    config = PrefixConfig(
        length=6, prompt_tuning=True, init="text", init_text="name and city to a sentence"
    )
    result = distil(base, tmp_path / "run", teacher=None, prefix=config)
    assert result.parameters == 6 * 64
    assert result.validation_loss < result.base_validation_loss
    start = base.key_values(base.tokenizer.encode_prompt("name and city to a sentence")[:6])
    moved = Prefix.load(result.prefix_path).layers
    assert np.abs(moved[0].key - start[0][0].numpy()).max() > 1e-3
    with pytest.raises(TrainingError, match="reparam and prompt_tuning were both given"):
        PrefixConfig(prompt_tuning=True, reparam=True)
