"""CTranslate2's Generator; its callback, called in C++ for each row's token, gives the times."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ctranslate2
from protocol import Generated, Job, Stamps, serve

COMPUTE = {"fp32": "float32", "int8": "int8"}


class CTranslate2:
    """Prompts go in as token texts: that is what it takes."""

    def __init__(self) -> None:
        self._generator: ctranslate2.Generator | None = None
        self._entries: list[str] = []

    def load(self, job: Job) -> None:
        if self._generator is None:
            self._generator = ctranslate2.Generator(
                job.model,
                compute_type=COMPUTE[job.precision],
                inter_threads=1,
                intra_threads=job.threads,
            )
            self._entries = json.loads(Path(job.model, "vocabulary.json").read_text())

    def generate(self, prompts: list[list[int]], new: int) -> Generated:
        texts = [[self._entries[token] for token in prompt] for prompt in prompts]
        tokens: list[list[int]] = [[] for _ in prompts]
        stamps = Stamps()

        def on_token(step: Any) -> bool:
            tokens[step.batch_id].append(step.token_id)
            if all(len(row) == step.step + 1 for row in tokens):
                stamps.mark()
            return False

        self._generator.generate_batch(
            texts,
            beam_size=1,
            max_length=new,
            min_length=new,
            include_prompt_in_result=False,
            callback=on_token,
        )
        return stamps.generated(tokens)


if __name__ == "__main__":
    serve(CTranslate2())
