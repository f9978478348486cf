"""transformers and PEFT prefix tuning in torch: a prefix of 10 positions over the checkpoint
itself.
"""

from __future__ import annotations

from typing import Any

import torch
from peft import PrefixTuningConfig, TaskType, get_peft_model
from protocol import Generated, Job, serve
from transformers import AutoModelForCausalLM
from transformers_loop import timed_generate

PREFIX_TOKENS = 10


class Peft:
    """The cache grows with the text."""

    def __init__(self) -> None:
        self._model: Any = None

    def load(self, job: Job) -> None:
        if self._model is None:
            torch.set_num_threads(job.threads)
            torch.manual_seed(0)
            base = AutoModelForCausalLM.from_pretrained(job.model, dtype=torch.float32)
            config = PrefixTuningConfig(
                task_type=TaskType.CAUSAL_LM, num_virtual_tokens=PREFIX_TOKENS
            )
            self._model = get_peft_model(base, config).eval()

    def generate(self, prompts: list[list[int]], new: int) -> Generated:
        return timed_generate(self._model, prompts, new)


if __name__ == "__main__":
    serve(Peft())
