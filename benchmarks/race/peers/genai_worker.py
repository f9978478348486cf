"""onnxruntime-genai: one Generator for each generation, as its examples do."""

from __future__ import annotations

import json

import numpy as np
import onnxruntime_genai as genai
from protocol import Generated, Job, Stamps, serve


class Genai:
    """The cache is as long as the text, and no longer."""

    def __init__(self) -> None:
        self._model: genai.Model | None = None

    def load(self, job: Job) -> None:
        if self._model is None:
            config = genai.Config(job.model)
            threads = {
                "model": {"decoder": {"session_options": {"intra_op_num_threads": job.threads}}}
            }
            config.overlay(json.dumps(threads))
            self._model = genai.Model(config)

    def generate(self, prompts: list[list[int]], new: int) -> Generated:
        length = len(prompts[0]) + new
        settings = genai.GeneratorParams(self._model)
        settings.set_search_options(
            do_sample=False,
            batch_size=len(prompts),
            max_length=length,
            min_length=length,
            early_stopping=False,
        )
        ids = np.asarray(prompts, np.int32)
        tokens: list[np.ndarray] = []
        stamps = Stamps()
        generator = genai.Generator(self._model, settings)
        generator.append_tokens(ids)
        for _ in range(new):
            generator.generate_next_token()
            tokens.append(np.array(generator.get_next_tokens()))
            stamps.mark()
        return stamps.generated(np.stack(tokens, axis=1).tolist())


if __name__ == "__main__":
    serve(Genai())
