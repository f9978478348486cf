"""OpenVINO GenAI's LLMPipeline. Times are those it takes itself, in C++.

In the fp32 class arithmetic and cache are held to f32 (its defaults are bf16 and u8); int8 and int4
run with its defaults. No prompt is kept: prefix caching is off, and prompts never repeat.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import openvino
import openvino_genai as genai
from protocol import Generated, Job, serve

MICRO = 1000.0  # its clock counts microseconds
F32 = {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32"}


class OpenVino:
    """One pipeline; the cache grows with the text."""

    def __init__(self) -> None:
        self._pipeline: genai.LLMPipeline | None = None

    def load(self, job: Job) -> None:
        if self._pipeline is not None:
            return
        settings: dict[str, Any] = {
            "INFERENCE_NUM_THREADS": job.threads,
            "PERFORMANCE_HINT": "LATENCY",
        }
        if job.precision == "fp32":
            settings |= F32
        scheduler = genai.SchedulerConfig()
        scheduler.enable_prefix_caching = False
        scheduler.max_num_batched_tokens = 2**31 - 1  # a prompt is not cut into pieces
        self._pipeline = genai.LLMPipeline(job.model, "CPU", scheduler_config=scheduler, **settings)

    def generate(self, prompts: list[list[int]], new: int) -> Generated:
        settings = genai.GenerationConfig()
        settings.max_new_tokens = settings.min_new_tokens = new
        settings.ignore_eos, settings.do_sample = True, False
        settings.apply_chat_template = False
        ids = np.asarray(prompts, np.int64)
        inputs = genai.TokenizedInputs(openvino.Tensor(ids), openvino.Tensor(np.ones_like(ids)))
        result = self._pipeline.generate(inputs, settings)
        times = result.perf_metrics.raw_metrics
        first, further = np.max(times.m_times_to_first_token), np.asarray(times.m_durations)
        # It shares a step's time out over its rows
        steps = further.reshape(-1, len(prompts)).sum(axis=1)
        return Generated(
            first_ms=first / MICRO, step_ms=(steps / MICRO).tolist(), tokens=result.tokens
        )


if __name__ == "__main__":
    serve(OpenVino())
