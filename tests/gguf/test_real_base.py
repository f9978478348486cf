"""Gemma 3 270M as the GGUF file that it is distributed as, beside the checkpoint made of it.

    EDGEPREFIX_REAL_BASE=FOLDER python -m pytest tests/gguf/test_real_base.py -m slow

FOLDER holds gemma-3-270m-q4_k_m.gguf and the checkpoint gemma-3-270m, whose numbers are the file's,
rounded to bf16.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from edgeprefix.base import Base, find_checkpoint, load_base
from edgeprefix.base.gguf.stored import stored_matrices

REAL = Path(os.environ.get("EDGEPREFIX_REAL_BASE", "/nowhere"))
FILE, CHECKPOINT = REAL / "gemma-3-270m-q4_k_m.gguf", REAL / "gemma-3-270m"
PROSE = Path(__file__).parents[2] / ".." / "shared" / "data" / "corpus_en" / "validation.txt"
TOKENS, WINDOW = 2000, 500
AT_ONCE = 8192  # rows

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not FILE.is_file(), reason="EDGEPREFIX_REAL_BASE names no folder with it"),
]


@pytest.fixture(scope="module")
def prose() -> str:
    places = [Path(os.environ.get("EDGEPREFIX_SHARED", "/nowhere")), PROSE.parents[2]]
    for place in places:
        file = place / "data" / "corpus_en" / "validation.txt"
        if file.is_file():
            return file.read_text(encoding="utf-8")
    pytest.skip("../shared/data/corpus_en is not there")


@torch.no_grad()
def perplexity(base: Base, text: str) -> float:
    """Over plain windows of the text, each begun with the begin token."""
    assert base.tokenizer is not None
    ids = base.tokenizer.encode(text[: 10 * TOKENS], add_special_tokens=False).ids[:TOKENS]
    total, count, model = 0.0, 0, base.model
    for start in range(0, TOKENS, WINDOW):
        window = torch.tensor([[2, *ids[start : start + WINDOW]]])
        found: Any = model(window).logits[0, :-1].float()
        total += float(torch.nn.functional.cross_entropy(found, window[0, 1:], reduction="sum"))
        count += window.shape[1] - 1
    return math.exp(total / count)


def test_perplexity_and_identity(prose: str) -> None:
    """bf16 rounds what the file holds, so the two differ by no more than that."""
    first = load_base(FILE)
    found = perplexity(first, prose)
    assert find_checkpoint(FILE).identity() == first.identity
    del first
    expected = perplexity(load_base(CHECKPOINT), prose)
    print(f"perplexity {found:.4f} of the file, {expected:.4f} of the checkpoint")  # noqa: T201
    assert found == pytest.approx(expected, rel=0.002)


def test_the_tokenizer_is_the_checkpoint_s(prose: str) -> None:
    own = find_checkpoint(FILE).tokenizer()
    assert own is not None
    expected = Tokenizer.from_file(str(CHECKPOINT / "tokenizer.json"))
    texts = [
        *prose.split("\n")[:500],
        "a  b\n\n\n\tc",
        "<start_of_turn>user\nhi<end_of_turn>",
        "漢字☃",
    ]
    for text in texts:
        assert own.encode(text).ids == expected.encode(text).ids


def test_its_steps_are_its_numbers() -> None:
    """Q5_0, Q8_0 and Q6_K bit for bit; Q4_K within three roundings."""
    base = load_base(FILE)
    parameters, matrices = base.model.state_dict(), stored_matrices(base)
    assert len(matrices) == 18 * 7 + 2
    for name in matrices:
        matrix, weight = matrices[name], parameters[name].numpy()
        for start in range(0, len(weight), AT_ONCE):
            rows = slice(start, start + AT_ONCE)
            found, expected = matrix.rows(rows).numbers(), weight[rows]
            if matrix.zeros is None:
                np.testing.assert_array_equal(found, expected)
            else:
                assert np.abs(found - expected).max() <= 2.0**-20 * np.abs(weight).max()
