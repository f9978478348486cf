"""Optimum's ORTModelForCausalLM with transformers' generate."""

from __future__ import annotations

from typing import Any

import onnxruntime
from optimum.onnxruntime import ORTModelForCausalLM
from protocol import Generated, Job, serve
from transformers_loop import timed_generate


class Optimum:
    """The cache grows with the text."""

    def __init__(self) -> None:
        self._model: Any = None

    def load(self, job: Job) -> None:
        if self._model is None:
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = job.threads
            self._model = ORTModelForCausalLM.from_pretrained(job.model, session_options=options)

    def generate(self, prompts: list[list[int]], new: int) -> Generated:
        return timed_generate(self._model, prompts, new)


if __name__ == "__main__":
    serve(Optimum())
