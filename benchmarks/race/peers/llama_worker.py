"""llama.cpp through llama-cpp-python's low-level calls: no Python sampling or bookkeeping of the
high-level class in the way.
"""

from __future__ import annotations

from typing import Any

import llama_cpp as api
import numpy as np
from protocol import Generated, Job, Stamps, serve


class Llama:
    """One context with a sequence for each row. The cache has llama.cpp's default type, f16."""

    def __init__(self) -> None:
        api.llama_backend_init()
        self._log = api.llama_log_callback(lambda level, text, data: None)
        api.llama_log_set(self._log, None)
        self._model: Any = None
        self._context: Any = None

    def load(self, job: Job) -> None:
        if self._model is None:
            self._model = api.llama_model_load_from_file(
                f"{job.model}/model.gguf".encode(), api.llama_model_default_params()
            )
        if self._context is not None:
            api.llama_free(self._context)
        settings = api.llama_context_default_params()
        settings.n_ctx, settings.n_seq_max = job.capacity * job.batch, job.batch
        settings.n_threads = settings.n_threads_batch = job.threads
        self._context = api.llama_init_from_model(self._model, settings)
        if not self._context:
            raise RuntimeError("llama.cpp did not make a context")
        self._vocabulary = api.llama_vocab_n_tokens(api.llama_model_get_vocab(self._model))

    def generate(self, prompts: list[list[int]], new: int) -> Generated:
        api.llama_memory_clear(api.llama_get_memory(self._context), True)
        rows, length = len(prompts), len(prompts[0])
        tokens: list[list[int]] = [[] for _ in prompts]
        prompt = self._batch(rows * length)
        step = self._batch(rows)
        stamps = Stamps()
        for row, ids in enumerate(prompts):
            for position, token in enumerate(ids):
                _put(
                    prompt,
                    row * length + position,
                    token,
                    position,
                    row,
                    wanted=position == length - 1,
                )
        prompt.n_tokens = rows * length
        self._run(prompt, [(row + 1) * length - 1 for row in range(rows)], tokens)
        stamps.mark()
        for position in range(length, length + new - 1):
            for row in range(rows):
                _put(step, row, tokens[row][-1], position, row, wanted=True)
            step.n_tokens = rows
            self._run(step, list(range(rows)), tokens)
            stamps.mark()
        api.llama_batch_free(prompt)
        api.llama_batch_free(step)
        return stamps.generated(tokens)

    def _run(self, batch: Any, places: list[int], tokens: list[list[int]]) -> None:
        if api.llama_decode(self._context, batch):
            raise RuntimeError("llama_decode failed")
        for row, place in zip(tokens, places, strict=True):
            logits = np.ctypeslib.as_array(
                api.llama_get_logits_ith(self._context, place), shape=(self._vocabulary,)
            )
            row.append(int(logits.argmax()))

    @staticmethod
    def _batch(size: int) -> Any:
        return api.llama_batch_init(size, 0, 1)


def _put(batch: Any, index: int, token: int, position: int, row: int, *, wanted: bool) -> None:
    batch.token[index], batch.pos[index] = token, position
    batch.n_seq_id[index], batch.seq_id[index][0] = 1, row
    batch.logits[index] = wanted


if __name__ == "__main__":
    serve(Llama())
