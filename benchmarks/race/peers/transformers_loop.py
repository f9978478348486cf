"""`generate` of transformers, timed between its steps; shared by Optimum's worker and PEFT's."""

from __future__ import annotations

from typing import Any

import torch
from protocol import Generated, Stamps
from transformers import StoppingCriteria, StoppingCriteriaList


class _Clock(StoppingCriteria):
    """Never stops; notes the time after each token."""

    def __init__(self, stamps: Stamps) -> None:
        self._stamps = stamps

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        self._stamps.mark()
        return torch.zeros(len(input_ids), dtype=torch.bool)


@torch.inference_mode()
def timed_generate(model: Any, prompts: list[list[int]], new: int) -> Generated:
    """Greedy, `new` tokens a row."""
    ids = torch.tensor(prompts)  # [B, S]
    stamps = Stamps()
    found = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        min_new_tokens=new,
        max_new_tokens=new,
        pad_token_id=0,
        stopping_criteria=StoppingCriteriaList([_Clock(stamps)]),
    )
    return stamps.generated(found[:, ids.shape[1] :].tolist())
