"""llama.cpp's losses on given tokens; run by benchmarks/perplexity.py in an environment of its own.

    python -m venv llama && llama/bin/pip install cyllama==0.2.18 numpy   # with llama.cpp's library
    llama/bin/python benchmarks/perplexity_llama.py < request.json

{"model": GGUF, "texts": [[ids], …]} → {"losses": [nats of every token behind the first], "version"}
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import version

import numpy as np
from cyllama.llama import llama_cpp

_BATCH = 128  # tokens; all of them get logits


class Model(llama_cpp.LlamaModel):  # type: ignore[misc]  # no stubs
    """A model that says how wide its logits are, which this version's `get_logits_ith` asks."""

    @property
    def n_vocab(self) -> int:
        """V."""
        width: int = self.get_vocab().n_vocab
        return width


def losses_of(path: str, texts: Sequence[Sequence[int]]) -> Iterator[float]:
    """−log p of every token behind the first of its text, in nats."""
    llama_cpp.ggml_backend_load_all()
    model = Model(path, llama_cpp.LlamaModelParams(), verbose=False)
    settings = llama_cpp.LlamaContextParams()
    settings.n_ctx = max(map(len, texts))
    settings.n_batch = settings.n_ubatch = _BATCH
    settings.n_threads = settings.n_threads_batch = len(os.sched_getaffinity(0))
    context = llama_cpp.LlamaContext(model, settings, verbose=False)
    for text in texts:
        context.kv_cache_clear()
        for start in range(0, len(text), _BATCH):
            piece = text[start : start + _BATCH]
            batch = llama_cpp.LlamaBatch(n_tokens=len(piece), embd=0, n_seq_max=1)
            for place, token in enumerate(piece):
                batch.add(token, start + place, [0], True)
            context.decode(batch)
            for place, token in enumerate(text[start + 1 : start + 1 + len(piece)]):
                logits = np.array(context.get_logits_ith(place), np.float64)
                largest = logits.max()
                yield float(np.log(np.exp(logits - largest).sum()) + largest - logits[token])


if __name__ == "__main__":
    request = json.load(sys.stdin)
    found = list(losses_of(request["model"], request["texts"]))
    print(json.dumps({"losses": found, "version": f"cyllama {version('cyllama')}"}))
