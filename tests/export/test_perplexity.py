"""Perplexity beside transformers' own loss."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from graphs import MakeBundle

import edgeprefix.export.perplexity as module
from edgeprefix.base import Base
from edgeprefix.export.perplexity import graph_reading, perplexity, text_losses, torch_reading
from edgeprefix.runtime.contracts.manifest import Manifest
from edgeprefix.runtime.decoding.opening import CacheSize, open_decoder

TEXTS = [np.random.default_rng(seed).integers(2, 300, 90 + seed) for seed in range(3)]


@pytest.mark.parametrize("piece", ["whole", "in pieces"])
def test_it_is_what_transformers_says(
    piece: str, llama: Base, llama_bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    if piece == "in pieces":
        monkeypatch.setattr(module, "_PIECE_BYTES", 1)  # sixteen tokens
    bundle = llama_bundle("fp32")
    manifest = Manifest.load(bundle)
    decoder = open_decoder(bundle, manifest, CacheSize(rows=1, capacity=128))
    expected = []
    for text in TEXTS:
        ids = torch.from_numpy(text)[None]
        with torch.no_grad():
            expected.append(float(llama.model(ids, labels=ids).loss))
    weights = [len(text) - 1 for text in TEXTS]
    wanted = np.exp(np.average(expected, weights=weights))
    for reading in (torch_reading(llama.model, 384), graph_reading(decoder, 384)):
        assert text_losses(reading, TEXTS[0]).shape == (weights[0],)
        assert perplexity(reading, TEXTS) == pytest.approx(wanted, rel=1e-5)


def test_losses_of_large_logits_do_not_overflow() -> None:
    logits = np.array([[1000.0, 0.0], [0.0, 1000.0]], np.float32)
    assert module.token_losses(logits, np.array([0, 0])).tolist() == [0.0, 1000.0]
    assert len(module.token_losses(logits, np.array([1]))) == 1
    assert len(module.token_losses(logits, np.array([], np.int64))) == 0
