"""A base's matrices rounded by what they do to text: in which formats, from which texts, and how
well.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel
from zoo import tiny_model

from edgeprefix.base import Base, load_base
from edgeprefix.base.rounding import WeightFormat
from edgeprefix.export.bundle import export_decoder
from edgeprefix.export.rounding.budget import Offer, choices, within_bytes, within_damage
from edgeprefix.export.rounding.damage import sensitivities
from edgeprefix.export.rounding.gptq import nearest
from edgeprefix.export.rounding.layerwise import Layerwise, Texts
from edgeprefix.export.rounding.plan import FittedPlan, Goal, make_plan
from edgeprefix.export.rounding.siblings import find_siblings
from edgeprefix.export.rounding.table import plan_table
from edgeprefix.export.rounding.texts import calibration_texts, of_rows, sampled
from edgeprefix.export.rounding.walk import Walk
from edgeprefix.export.size import Wanted
from edgeprefix.runtime.errors import ExportError
from tiny import save_checkpoint, tiny_gpt2, tiny_llama, tiny_mistral

FORM = WeightFormat(bits=4, block=32, symmetric=False)


@pytest.fixture(scope="module")
def base(llama_base: Path) -> Base:
    return load_base(llama_base)


@pytest.fixture(scope="module")
def texts(base: Base) -> Texts:
    rows = sampled(base, count=12, length=48, seed=0, done=lambda _: None)
    return Texts(rows[:8].split(4), rows[8:].split(4))


def tokens(count: int = 4, length: int = 40) -> Tensor:
    return torch.randint(0, 384, (count, length), generator=torch.Generator().manual_seed(1))


def divergence(model: PreTrainedModel, expected: Tensor, ids: Tensor) -> float:
    """Mean KL, nats."""
    with torch.no_grad():
        found = model(input_ids=ids).logits.log_softmax(-1)
    return float(
        functional.kl_div(found, expected, reduction="none", log_target=True).sum(-1).mean()
    )


def log_probabilities(model: PreTrainedModel, ids: Tensor) -> Tensor:
    with torch.no_grad():
        result: Tensor = model(input_ids=ids).logits.log_softmax(-1)
    return result


ARCHITECTURES = {
    "llama": lambda: tiny_llama(),
    "gpt2": lambda: tiny_gpt2(),
    "mistral": lambda: tiny_mistral(),
    "gemma3_text": lambda: tiny_model("gemma3_text"),
    "gpt_neox": lambda: tiny_model("gpt_neox"),
    "phi": lambda: tiny_model("phi"),
    "cohere2": lambda: tiny_model("cohere2"),
}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_walk_is_the_models_own_way(name: str) -> None:
    """Layer by layer the same hidden states, the same logits."""
    model, ids = ARCHITECTURES[name]().requires_grad_(False), tokens()
    walk = Walk(model, [ids])
    with torch.no_grad():
        out = model(input_ids=ids, output_hidden_states=True)
    for index in range(len(walk.layers)):
        walk.run(0)
        walk.advance()
        if index + 1 < len(walk.layers):
            torch.testing.assert_close(walk.outputs(0), out.hidden_states[index + 1])
    positions = torch.tensor([3, 17, 39])
    with torch.no_grad():
        logits = walk.logits(0, positions, walk.outputs(0))
    torch.testing.assert_close(logits, out.logits[:, positions])
    torch.testing.assert_close(model(input_ids=ids).logits, out.logits)  # all as it was


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_damage_is_what_the_rounded_model_loses(name: str) -> None:
    """Group by group the estimate is near the measured divergence. Keys and values err alike at all
    tokens, which the estimate leaves out: it may be low there.
    """
    model, ids = ARCHITECTURES[name]().requires_grad_(False), tokens(8, 64)
    expected = log_probabilities(model, ids)
    for layer in sensitivities(model, ids):
        for one in layer:
            weight = one.group.weight()
            rounded = nearest(weight, one.importance(), bits=4, block=32).numbers()
            with one.group.holding(rounded):
                measured = divergence(model, expected, ids)
            ratio = one.damage(rounded - weight) / measured
            lowest = 0.1 if "k" in one.group.label or "attn" in one.group.label else 0.5
            assert lowest < ratio < 1.6, one.group.label
    torch.testing.assert_close(log_probabilities(model, ids), expected)


def test_rounded_inputs_damage_less_in_small_blocks() -> None:
    """And what is expected of them is near what is measured."""
    model, ids = tiny_llama().requires_grad_(False), tokens(8, 64)
    expected = log_probabilities(model, ids)

    def to_8_bits(module: torch.nn.Module, given: tuple[Tensor]) -> tuple[Tensor]:
        parts = given[0].unflatten(-1, (-1, 32))
        scale = parts.abs().amax(-1, keepdim=True) / 127
        return (((parts / scale).round() * scale).flatten(-2),)

    for layer in sensitivities(model, ids):
        for one in layer:
            weight = one.group.weight()
            assert one.damage_of_inputs(weight, 16) < one.damage_of_inputs(weight, 64)
            handles = [m.register_forward_pre_hook(to_8_bits) for m in one.group.modules]
            measured = divergence(model, expected, ids)
            for handle in handles:
                handle.remove()
            assert 0.3 < one.damage_of_inputs(weight, 32) / measured < 2, one.group.label


def test_siblings_are_the_matrices_of_one_input() -> None:
    model = tiny_llama().requires_grad_(False)
    groups = find_siblings(model, Walk(model, [tokens()]), layer=0)
    assert [group.label for group in groups] == [
        "q_proj k_proj v_proj", "o_proj", "gate_proj up_proj", "down_proj",
    ]  # fmt: skip
    weight = torch.cat([model.get_parameter(name) for name in groups[0].names])
    assert torch.equal(groups[0].weight(), weight)
    turned = tiny_gpt2().requires_grad_(False)  # whose modules keep [K, N]
    fc = find_siblings(turned, Walk(turned, [tokens()]), layer=0)[2]
    assert torch.equal(fc.weight(), turned.get_parameter("transformer.h.0.mlp.c_fc.weight").T)


def rounded(base: Base, texts: Texts) -> tuple[dict[str, np.ndarray], float]:
    """Numbers [N, K] of every matrix, and the divergence."""
    run = Layerwise(base.model, texts)
    found = {}
    for layer in run.layers(lambda group: FORM):
        for name, matrix in layer.items():
            found[name] = matrix.numbers()
    return found, run.divergence()


def test_the_divergence_is_that_of_the_rounded_model(base: Base, texts: Texts) -> None:
    ids = texts.held_out[0]
    expected = log_probabilities(base.model, ids)
    numbers, told = rounded(base, texts)
    model = load_base(base.folder).model
    for name, matrix in numbers.items():
        model.get_parameter(name).data = torch.from_numpy(matrix)
    assert told == pytest.approx(divergence(model, expected, ids), rel=1e-3)
    assert torch.equal(log_probabilities(base.model, ids), expected)  # the base is as it was


def test_a_streamed_base_gives_the_same_plan(tmp_path: Path, texts: Texts) -> None:
    folder = save_checkpoint(tiny_llama().bfloat16(), tmp_path / "half")
    whole, streamed = (
        rounded(load_base(folder, hold=hold), texts) for hold in ("fp32", "streamed")
    )
    assert whole[1] == streamed[1]
    assert all(np.array_equal(whole[0][name], streamed[0][name]) for name in whole[0])
    base = load_base(folder, hold="streamed")
    for layer in sensitivities(base.model, texts.fitted[0]):
        assert all(math.isfinite(one.damage(torch.ones(one.group.shape))) for one in layer)
    assert {parameter.dtype for parameter in base.model.parameters()} == {torch.bfloat16}


def plan_of(base: Base, texts: Texts, goal: Goal) -> FittedPlan:
    return make_plan(base, texts, goal, progress=lambda _: None)


def test_a_quality_is_kept_and_more_bytes_are_better(base: Base, texts: Texts) -> None:
    coarse, fine = (plan_of(base, texts, Goal(quality=quality)) for quality in (1.02, 1.002))
    assert coarse.quality <= 1.02
    assert fine.quality <= 1.002
    sizes = [sum(one.bytes for one in plan.chosen) for plan in (coarse, fine)]
    assert sizes[0] < sizes[1]
    table = plan_table(fine)
    assert "layer   1  q k v" in table
    assert f"× {fine.quality:.3f}" in table
    with pytest.raises(ExportError, match=r"no mix of 4 and 8 bits .* choose int8 or fp32"):
        plan_of(base, texts, Goal(quality=1.0000001))


@settings(deadline=None)
@given(
    groups=st.lists(
        st.lists(st.tuples(st.integers(1, 1000), st.floats(0, 1)), min_size=1, max_size=5),
        min_size=1,
        max_size=8,
    ),
    limits=st.tuples(st.integers(1, 6000), st.integers(1, 6000)),
)
def test_a_budget_is_kept_and_more_of_it_never_hurts(
    groups: list[list[tuple[int, float]]], limits: tuple[int, int]
) -> None:
    found = choices(
        [[Offer(format=FORM, bytes=size, damage=damage) for size, damage in one] for one in groups]
    )
    assert [choice.bytes for choice in found] == sorted(choice.bytes for choice in found)
    damages = [choice.damage for choice in found]
    assert all(later <= earlier + 1e-9 for earlier, later in itertools.pairwise(damages))
    assert found[-1].damage == pytest.approx(sum(min(d for _, d in one) for one in groups))
    small, large = (within_bytes(found, limit) for limit in sorted(limits))
    assert small is None or small.bytes <= min(limits)
    if small is not None:
        assert large is not None
        assert large.damage <= small.damage + 1e-9
    within = within_damage(found, 0.5)
    assert within is None or within.damage <= 0.5


def test_no_other_choice_of_a_budget_is_much_better() -> None:
    """Against all choices of four groups: buying by price is best at each budget that it spends."""
    random = np.random.default_rng(0)
    offers = [
        [Offer(format=FORM, bytes=int(size), damage=float(damage)) for size, damage in zip(
            np.sort(random.integers(10, 100, 3)), -np.sort(-random.random(3)), strict=True)]
        for _ in range(4)
    ]  # fmt: skip
    for choice in choices(offers):
        best = min(
            (a.damage + b.damage + c.damage + d.damage)
            for a in offers[0] for b in offers[1] for c in offers[2] for d in offers[3]
            if a.bytes + b.bytes + c.bytes + d.bytes <= choice.bytes
        )  # fmt: skip
        assert choice.damage == pytest.approx(best)


def test_texts_are_those_of_the_seed(base: Base) -> None:
    def draw(seed: int) -> Tensor:
        return sampled(base, count=3, length=20, seed=seed, done=lambda _: None)

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))
    assert draw(1).shape == (3, 20)
    assert (draw(1)[:, 0] == base.begin_id).all()


def test_sampled_tokens_come_as_often_as_the_base_says(base: Base) -> None:
    rows = sampled(base, count=4000, length=2, seed=0, done=lambda _: None)
    with torch.no_grad():
        expected = base.model(input_ids=rows[:1, :1]).logits[0, -1].softmax(-1)
    seen = torch.bincount(rows[:, 1], minlength=len(expected)) / len(rows)
    likely = expected > 0.005
    assert likely.any()
    torch.testing.assert_close(seen[likely], expected[likely], rtol=0.5, atol=0.005)


def test_the_users_rows_come_first(base: Base) -> None:
    rows = ["The quick brown fox jumps over the lazy dog. " * 40] * 3
    assert base.tokenizer is not None
    given_rows = of_rows(base, rows, length=16, limit=5)
    assert given_rows.shape == (5, 16)
    begin = [] if base.begin_id is None else [base.begin_id]
    expected = begin + base.tokenizer.encode(rows[0], add_special_tokens=False).ids
    assert given_rows.flatten().tolist() == expected[:80]
    assert of_rows(base, ["short"], length=64, limit=5).shape == (0, 64)
    fitted, held_out = calibration_texts(base, rows, done=lambda _: None)
    assert len(held_out) == 4
    assert not {tuple(row.tolist()) for row in fitted} & {tuple(row.tolist()) for row in held_out}


@pytest.mark.slow
@pytest.mark.parametrize("make", [tiny_llama, tiny_gpt2])
def test_a_bundle_keeps_to_a_size(make: type[PreTrainedModel], tmp_path: Path) -> None:
    folder = save_checkpoint(make(), tmp_path / "base")
    plans: list[FittedPlan] = []
    smallest = 0
    for size in (400_000, 500_000):
        wanted = Wanted(size_bytes=size)
        out = tmp_path / str(size)
        manifest = export_decoder(
            folder, out, precision="int4", rounding=wanted, fitted=plans.append
        )
        written = sum(path.stat().st_size for path in out.iterdir())
        assert smallest <= written <= size
        assert manifest.parity["passed"]
        smallest = written
    assert plans[1].divergence <= plans[0].divergence
    with pytest.raises(
        ExportError, match=r"cannot be had: embedding, tokenizer and all .* ask for"
    ):
        export_decoder(folder, tmp_path / "b", precision="int4", rounding=Wanted(size_bytes=10_000))


def test_what_cannot_be_wanted_is_said(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="choose the one that is to decide"):
        Wanted(size_bytes=10, quality=1.03)
    with pytest.raises(ExportError, match="is no size; give bytes above 0"):
        Wanted(size_bytes=0)
    with pytest.raises(ExportError, match=r"not above 1: .* 1\.03 say"):
        Wanted(quality=0.97)
    with pytest.raises(ExportError, match="for precision int4, not int8"):
        export_decoder("nowhere", tmp_path / "b", precision="int8", rounding=Wanted())


@pytest.fixture(scope="session")
def real_base() -> Path:
    folder = os.environ.get("EDGEPREFIX_REAL_BASE")
    if folder is None:
        pytest.skip("EDGEPREFIX_REAL_BASE names no folder with gemma-3-270m")
    return Path(folder) / "gemma-3-270m"


def losses(base: Base, ids: Sequence[Tensor]) -> float:
    """Mean loss of the next token, nats."""
    with torch.no_grad():
        found = [base.model(input_ids=row[None]).logits[0, :-1] for row in ids]
    return float(
        np.mean(
            [functional.cross_entropy(one, row[1:]) for one, row in zip(found, ids, strict=True)]
        )
    )


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_real_base_keeps_its_perplexity(real_base: Path, shared: Path, tmp_path: Path) -> None:
    """At most 1.05 times the base's perplexity on novels, in no more bytes than Q4_K_M takes."""
    text = (shared / "data/corpus_en/validation.txt").read_text(encoding="utf-8")
    base = load_base(real_base, fast_attention=True)
    assert base.tokenizer is not None
    ids = base.tokenizer.encode(text[:40_000], add_special_tokens=False).ids[: 16 * 255]
    windows = [torch.tensor([base.begin_id, *ids[at : at + 255]]) for at in range(0, len(ids), 255)]
    before = losses(base, windows)
    plans: list[FittedPlan] = []
    out = tmp_path / "bundle"
    export_decoder(
        real_base, out, precision="int4", rounding=Wanted(size_bytes=253_000_000),
        fitted=plans.append, verify=False,
    )  # fmt: skip
    assert sum(path.stat().st_size for path in out.iterdir()) <= 253_000_000
    for name, matrix in plans[0].matrices.items():
        parameter = base.model.get_parameter(name)
        parameter.data = torch.from_numpy(matrix.numbers()[:, : parameter.shape[1]].copy())
    assert math.exp(losses(base, windows) - before) <= 1.05
