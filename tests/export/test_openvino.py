"""Prefixes in OpenVINO: the same greedy tokens as torch from a stateful model that optimum-intel
exported (slow).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest
import torch
from test_llama_cpp import COUNT, PROMPT, prefix_of, torch_greedy
from transformers import AutoModelForCausalLM

from edgeprefix.export.formats.openvino import write_openvino
from tiny import save_checkpoint, tiny_gpt2, tiny_llama

PACKAGES = [
    "torch==2.13.0",
    "optimum-intel[openvino]==2.2.0",
    "transformers<4.58",
    "openvino<2027",
    "safetensors",
]


@pytest.fixture(scope="module")
def openvino(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with optimum-intel."""
    folder = tmp_path_factory.mktemp("openvino") / "venv"
    venv.create(folder, with_pip=True)
    python = folder / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    pip = [str(python), "-m", "pip"]
    if subprocess.run(
        [*pip, "install", "--quiet", *PACKAGES], capture_output=True, check=False
    ).returncode:
        pytest.skip("optimum-intel cannot be installed here")
    # Comes along, is of another torch build, and breaks the import of transformers; no language
    # model needs it.
    subprocess.run(
        [*pip, "uninstall", "--quiet", "--yes", "torchvision"], capture_output=True, check=True
    )
    return python


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("make", [tiny_gpt2, tiny_llama])
def test_openvino_gives_torchs_tokens(make: object, openvino: Path, tmp_path: Path) -> None:
    base = save_checkpoint(make(), tmp_path / "base")  # type: ignore[operator]
    (
        base / "tokenizer_config.json"
    ).unlink()  # of transformers 5; the other side is at 4.57 and gets token ids
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
    prefix = prefix_of(model, [7, 100, 9, 300, 42])
    write_openvino(prefix, tmp_path / "t.states")
    requests = [
        {"state": state, "prompt": PROMPT, "count": COUNT}
        for state in (None, str(tmp_path / "t.states"))
    ]
    side = [str(openvino), str(Path(__file__).with_name("openvino_side.py")), str(base)]
    done = subprocess.run(
        side,
        input=json.dumps({"requests": requests}),
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    bare, behind = json.loads(done.stdout.splitlines()[-1])["tokens"]
    expected, _ = torch_greedy(model, prefix)
    assert bare == torch_greedy(model, None)[0]
    assert behind == expected
    assert expected != bare
