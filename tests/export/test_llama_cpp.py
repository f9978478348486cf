"""Prefixes in llama.cpp: the state file's bytes, and the same greedy tokens as torch from the real
library (slow).
"""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    MistralConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)
from transformers.cache_utils import DynamicCache

from edgeprefix.export.formats.llama_cpp import interleave, refuse, write_llama_cpp
from edgeprefix.runtime import Prefix
from edgeprefix.runtime.contracts.identity import BaseIdentity
from edgeprefix.runtime.contracts.prefix_file import PrefixLayer
from edgeprefix.runtime.errors import ExportError
from tiny import VOCABULARY, randomise, save_checkpoint, tiny_gpt2, tiny_llama

PACKAGES = ["numpy", "safetensors", "gguf", "llama-cpp-python==0.3.36"]
BASE = BaseIdentity(
    name="base", weights_sha256="0" * 64, config_sha256="1" * 64, tokenizer_sha256="2" * 64
)
LLAMA3 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64, "rope_theta": 10000.0,
}  # fmt: skip
PROMPT, COUNT = [5, 80, 200, 33], 24


def tiny_qwen2() -> PreTrainedModel:
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
    )
    return randomise(Qwen2ForCausalLM(config))


MODELS = {
    "gpt2": tiny_gpt2,
    "llama": tiny_llama,
    "llama3": lambda: tiny_llama(rope_parameters=LLAMA3),
    "qwen2": tiny_qwen2,
}


def prefix_of(model: PreTrainedModel, ids: list[int]) -> Prefix:
    """The model's own keys and values over a text, made stronger so that they matter."""
    cache = DynamicCache()
    with torch.no_grad():
        model(torch.tensor([ids]), past_key_values=cache)
    layers = [
        PrefixLayer(2 * layer.keys[0].numpy(), 2 * layer.values[0].numpy())
        for layer in cache.layers
    ]
    return Prefix(name="t", base=BASE, layers=tuple(layers))


def torch_greedy(model: PreTrainedModel, prefix: Prefix | None) -> tuple[list[int], list[float]]:
    """Tokens, and by how much each beat the second best."""
    cache, new = DynamicCache(), torch.tensor([PROMPT])
    for index, layer in enumerate(prefix.layers if prefix else ()):
        cache.update(torch.tensor(layer.key[None]), torch.tensor(layer.value[None]), index)
    tokens, margins = [], []
    with torch.no_grad():
        for _ in range(COUNT):
            best = model(new, past_key_values=cache).logits[0, -1].topk(2)
            tokens.append(int(best.indices[0]))
            margins.append(float(best.values[0] - best.values[1]))
            new = best.indices[None, :1]
    return tokens, margins


def test_the_bytes_of_a_state_file(tmp_path: Path) -> None:
    model = tiny_llama()
    prefix = prefix_of(model, [7, 8, 9])
    write_llama_cpp(prefix, tmp_path / "t.state", model.config, dtype="fp32")
    data = (tmp_path / "t.state").read_bytes()
    P, layers, row = 3, 2, 2 * 16 * 4
    header = struct.unpack("<4sIIiii", data[:24])
    assert header == (b"qsgg", 3, P, 0, 0, 0)
    assert struct.unpack("<II", data[24:32]) == (1, P)
    cells = struct.unpack(f"<{3 * P}i", data[32 : 32 + 12 * P])
    assert cells == (0, 1, 0, 1, 1, 0, 2, 1, 0)
    start = 32 + 12 * P
    assert struct.unpack("<II", data[start : start + 8]) == (0, layers)
    assert struct.unpack("<iQ", data[start + 8 : start + 20]) == (0, row)
    keys = np.frombuffer(data[start + 20 : start + 20 + P * row], np.float32).reshape(P, 2, 16)
    np.testing.assert_array_equal(keys.transpose(1, 0, 2), interleave(prefix.layers[0].key))
    assert len(data) == start + 8 + 2 * layers * (12 + P * row)


def test_interleaving_keeps_pairs_together() -> None:
    key = np.arange(8, dtype=np.float32).reshape(1, 1, 8)
    assert interleave(key).ravel().tolist() == [0, 4, 1, 5, 2, 6, 3, 7]


def test_what_a_state_file_cannot_hold(tmp_path: Path) -> None:
    model = tiny_llama()
    with pytest.raises(ExportError, match="fp16 or fp32 here, not int8"):
        write_llama_cpp(prefix_of(model, [1]), tmp_path / "t", model.config, dtype="int8")
    with pytest.raises(
        ExportError, match="states of mistral have not been tried; they were of gpt2, llama, qwen2"
    ):
        refuse(MistralConfig())
    with pytest.raises(ExportError, match="keeps sliding windows in a cache of its own"):
        refuse(Qwen2Config(use_sliding_window=True, sliding_window=12))
    refuse(Qwen2Config())
    with pytest.raises(ExportError, match="rope of type 'yarn' has not been tried"):
        refuse(tiny_llama(rope_parameters=LLAMA3 | {"rope_type": "yarn"}).config)


@pytest.fixture(scope="module")
def llama_cpp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with llama.cpp, which pip builds from its sources
    (PIP_FIND_LINKS may name a wheel).
    """
    folder = tmp_path_factory.mktemp("llama") / "venv"
    venv.create(folder, with_pip=True)
    python = folder / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    command = [str(python), "-m", "pip", "install", "--quiet", *PACKAGES]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("llama-cpp-python cannot be installed here")
    return python


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", MODELS)
def test_llama_cpp_gives_torchs_tokens(kind: str, llama_cpp: Path, tmp_path: Path) -> None:
    """All tokens with its cache in fp32; in fp16, its default, as long as a token is ahead of the
    next by more than rounding.
    """
    base = save_checkpoint(MODELS[kind](), tmp_path / "base")
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
    prefix = prefix_of(model, [7, 100, 9, 300, 42])
    requests = [{"state": None, "cache": "fp32", "prompt": PROMPT, "count": COUNT}]
    for dtype in ("fp32", "fp16"):
        state = tmp_path / f"{dtype}.state"
        write_llama_cpp(prefix, state, model.config, dtype=dtype)
        requests.append({"state": str(state), "cache": dtype, "prompt": PROMPT, "count": COUNT})
    side = [
        str(llama_cpp),
        str(Path(__file__).with_name("llama_cpp_side.py")),
        str(base),
        str(tmp_path),
    ]
    done = subprocess.run(
        side, input=json.dumps({"requests": requests}), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    bare, exact, half = json.loads(done.stdout)["tokens"]
    expected, margins = torch_greedy(model, prefix)
    assert bare == torch_greedy(model, None)[0]
    assert exact == expected
    assert expected != bare
    sure = next((place for place, margin in enumerate(margins) if margin < 0.01), COUNT)
    assert half[:sure] == expected[:sure]
    assert sure > 2
