"""Validation numbers against plain ways of getting them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from test_attention import P, random_prefix
from transformers import PreTrainedModel

from edgeprefix.train import FrozenModel, load_base
from edgeprefix.train.data import Example, encode_example
from edgeprefix.train.evaluate import (
    bleu,
    generate,
    generation_metric,
    label_accuracy,
    label_log_likelihoods,
    scores_behind_one_prompt,
    target_loss,
)
from tiny import save_checkpoint, tiny_gpt2, tiny_llama, tiny_mistral


def test_generation_equals_reading_everything_anew_for_each_token(llama: FrozenModel) -> None:
    prompts = [
        llama.tokenizer.encode_prompt(text)
        for text in ("the river", "a fox", "name: Ann | city: Rome")
    ]
    with torch.no_grad():
        prefix = random_prefix(llama)
        fast = generate(llama, prefix, prompts, max_new_tokens=8)
        for prompt, output in zip(prompts, fast, strict=True):
            slow: list[int] = []
            while len(slow) < 8:
                token = int(llama.logits(prefix, torch.tensor([[*prompt, *slow]]))[-1].argmax())
                if token in llama.tokenizer.end_ids:
                    break
                slow.append(token)
            assert output == slow


def test_label_likelihoods_are_sums_of_token_log_probabilities(llama: FrozenModel) -> None:
    prompt = llama.tokenizer.encode_prompt("please help")
    labels = [llama.tokenizer.encode_target(text) for text in ("yes", "no thanks")]
    with torch.no_grad():
        prefix = random_prefix(llama)
        scores = label_log_likelihoods(llama, prefix, [prompt], labels)[0]
        for score, label in zip(scores, labels, strict=True):
            logits = llama.logits(prefix, torch.tensor([[*prompt, *label]])).log_softmax(-1)
            expected = sum(
                float(logits[len(prompt) - 1 + at, token]) for at, token in enumerate(label)
            )
            assert float(score) == pytest.approx(expected, rel=1e-4)


def test_accuracy_counts_the_likeliest_label(llama: FrozenModel) -> None:
    prefix = [(key.detach(), value.detach()) for key, value in random_prefix(llama)]
    labels = ["yes", "no", "maybe"]
    prompts = ["a", "the quick fox", "where is it", "log in"]
    scores = label_log_likelihoods(
        llama,
        prefix,
        [llama.tokenizer.encode_prompt(text) for text in prompts],
        [llama.tokenizer.encode_target(label) for label in labels],
    )
    best = [labels[index] for index in scores.argmax(1).tolist()]
    examples = [
        encode_example(llama.tokenizer, text, label)
        for text, label in zip(prompts, best, strict=True)
    ]
    assert label_accuracy(llama, prefix, examples, labels) == 1.0
    wrong = [
        encode_example(llama.tokenizer, text, labels[labels.index(b) - 1])
        for text, b in zip(prompts, best, strict=True)
    ]
    assert label_accuracy(llama, prefix, wrong, labels) == 0.0


@pytest.mark.parametrize(
    "make", [tiny_llama, tiny_gpt2, lambda: tiny_mistral(window=5)], ids=["llama", "gpt2", "window"]
)
@pytest.mark.parametrize("length", [0, 3])
@torch.no_grad()
def test_a_prompt_that_is_read_once_scores_its_labels_as_one_that_is_read_with_each(
    make: Callable[[], PreTrainedModel], length: int, tmp_path: Path
) -> None:
    base = load_base(save_checkpoint(make(), tmp_path / "base"), precision="fp32")
    prefix = (
        [(key[:, :length], value[:, :length]) for key, value in random_prefix(base)]
        if length
        else []
    )
    labels = [base.tokenizer.encode_target(text) for text in ("yes", "no thanks", "maybe")]
    for text in ("a", "the river and the fox", "please help"):
        prompt = base.tokenizer.encode_prompt(text)
        together = scores_behind_one_prompt(base, prefix, prompt, labels)
        torch.testing.assert_close(
            together, label_log_likelihoods(base, prefix, [prompt], labels)[0]
        )


def test_loss_without_a_prefix_is_the_bases_own(llama: FrozenModel) -> None:
    example = encode_example(llama.tokenizer, "the river", " is near")
    ids = torch.tensor([[*example.prompt, *example.target]])
    with torch.no_grad():
        logits = llama.model(input_ids=ids).logits[0, len(example.prompt) - 1 : -1]
    expected = torch.nn.functional.cross_entropy(logits, torch.tensor(example.target))
    assert target_loss(llama, [], [example]) == pytest.approx(float(expected), rel=1e-5)


def test_bleu_takes_every_rows_references_together(llama: FrozenModel) -> None:
    assert bleu(
        ["the cat sat on the mat"], [["a dog ran", "The cat sat on the mat"]]
    ) == pytest.approx(100)
    assert bleu(["one two three four"], [["five six seven eight"]]) == pytest.approx(0)


def test_exact_counts_prompts_whose_answer_is_a_reference(llama: FrozenModel) -> None:
    texts = ("a", "the river", "please help", "name: Ann")
    prompts = [tuple(llama.tokenizer.encode_prompt(text)) for text in texts]
    # Targets of ten tokens let answers have fifteen
    outputs = generate(llama, [], prompts, max_new_tokens=15)
    answers = [llama.tokenizer.decode(ids).strip() for ids in outputs]

    def exact(right: int) -> float:
        references = [*answers[:right], *(answer + "!" for answer in answers[right:])]
        examples = [
            Example(prompt=prompt, target=(5,) * 10, text=text)
            for prompt, reference in zip(prompts, references, strict=True)
            for text in (reference, "another reference")
        ]
        return generation_metric(llama, [], examples, "exact")

    assert [exact(right) for right in range(5)] == [0.0, 0.25, 0.5, 0.75, 1.0]


def test_one_long_prompt_shortens_its_own_answer_only(llama: FrozenModel) -> None:
    """A prompt that leaves three positions gets three tokens; the others get what they may."""
    prompts = [llama.tokenizer.encode_prompt(text) for text in ("a", "the river")]
    long = [5] * (llama.max_positions - P - 3)
    with torch.no_grad():
        prefix = random_prefix(llama)
        alone = generate(llama, prefix, prompts, max_new_tokens=21)
        together = generate(llama, prefix, [*prompts, long], max_new_tokens=21)
        # Targets of 14 tokens let answers have 21
        examples = [
            Example(prompt=tuple(prompt), target=(5,) * 14, text=llama.tokenizer.decode(answer))
            for prompt, answer in zip([*prompts, long], together, strict=True)
        ]
        assert generation_metric(llama, prefix, examples, "exact") == 1.0
    assert together[:2] == alone
    assert max(map(len, alone)) > 3
    assert len(together[2]) <= 3
