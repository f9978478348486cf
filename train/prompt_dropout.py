"""Prompts that lose tokens: in every step each prompt is read without some of them, so that few
rows are not learnt by heart.

Random deletion (Wei & Zou 2019, "EDA: Easy Data Augmentation", section 2), on tokens. What all
prompts begin and end with stays: it is the template, not the text. Targets stay whole.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import takewhile

from edgeprefix.train.data import Example


@dataclass(frozen=True, kw_only=True)
class PromptDropout:
    """What may be left out, and how much of it."""

    share: float
    """Chance of each token between the template's."""
    head: int
    """Tokens at the beginning that all prompts have in common."""
    tail: int
    """The same at the end; at least the one that the target follows."""

    @staticmethod
    def over(examples: Sequence[Example], share: float) -> PromptDropout:
        """For these rows."""
        prompts = [example.prompt for example in examples]
        head, tail = _common(prompts), _common([prompt[::-1] for prompt in prompts])
        return PromptDropout(share=share, head=head, tail=max(1, tail))

    def shortened(self, example: Example, chance: random.Random) -> Example:
        """The row without the tokens that `chance` picks."""
        prompt = example.prompt
        end = max(self.head, len(prompt) - self.tail)
        kept = [token for token in prompt[self.head : end] if chance.random() >= self.share]
        return replace(example, prompt=(*prompt[: self.head], *kept, *prompt[end:]))


def _common(sequences: Sequence[Sequence[int]]) -> int:
    """How many elements all begin with."""
    return sum(
        1 for _ in takewhile(lambda column: len(set(column)) == 1, zip(*sequences, strict=False))
    )
