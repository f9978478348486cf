"""Texts that a base draws itself."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from edgeprefix.base import Base
from edgeprefix.export.perplexity import text_losses, torch_reading
from edgeprefix.export.sampled_text import sampled_texts


def test_texts_are_the_same_for_the_same_seed(llama: Base) -> None:
    done: list[float] = []
    texts = sampled_texts(llama, advance=done.append)
    again, others = sampled_texts(llama), sampled_texts(llama, seed=1)
    assert all(np.array_equal(text, same) for text, same in zip(texts, again, strict=True))
    assert not any(np.array_equal(text, other) for text, other in zip(texts, others, strict=True))
    assert len({tuple(text) for text in texts}) == len(texts)
    assert sum(map(len, texts)) > 1000
    assert done == sorted(done)
    assert done[-1] == 1.0


def test_texts_begin_as_texts_do_and_do_not_end(llama: Base) -> None:
    assert llama.begin_id == 0
    ending = dataclasses.replace(llama, end_ids=tuple(range(50, 384)))
    for text in sampled_texts(ending):
        assert text[0] == 0
        assert max(text[1:]) < 50


def test_a_base_of_few_positions_gives_short_texts(llama: Base) -> None:
    class Short(Base):
        max_positions = 20  # type: ignore[assignment]

    facts = {field.name: getattr(llama, field.name) for field in dataclasses.fields(Base)}
    assert {len(text) for text in sampled_texts(Short(**facts))} == {20}


def test_they_are_drawn_at_temperature_one(llama: Base) -> None:
    """The loss on them is, in expectation, the entropy of the distributions that they were drawn
    from; with another temperature, or of likeliest tokens, it is not.
    """
    sharp = dataclasses.replace(llama, end_ids=())  # nothing is kept from being drawn
    texts = sampled_texts(sharp)
    losses = np.concatenate(
        [text_losses(torch_reading(llama.model, vocabulary=384), text) for text in texts]
    )
    with torch.no_grad():
        logits = llama.model(torch.from_numpy(np.stack(texts))).logits[:, :-1].double()
    entropy = torch.distributions.Categorical(logits=logits).entropy().flatten().numpy()
    error = (losses - entropy).std() / np.sqrt(len(losses))
    assert abs((losses - entropy).mean()) < 3 * error
    cold = torch.distributions.Categorical(logits=2 * logits)
    colder = (cold.probs * -logits.log_softmax(-1)).sum(-1).mean()
    assert abs(losses.mean() - float(colder)) > 3 * error  # the test would see it
