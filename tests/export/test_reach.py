"""The graph loads, and says the same, on the oldest ONNX Runtime that edgeprefix allows, and in
WebAssembly.

Slow: these tests fetch a wheel and an npm package.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from graphs import MakeBundle

OLDEST = "1.26.0"
WEB = "1.30"

PROGRAM = """
import json, sys
sys.path.insert(0, sys.argv[1])
import numpy as np, onnxruntime
from edgeprefix.runtime.decoding.cache import Cache
from edgeprefix.runtime.decoding.decoder import Decoder
from edgeprefix.runtime.contracts.manifest import Manifest
from edgeprefix.runtime.decoding.session import open_graph
manifest = Manifest.load(sys.argv[2])
graph = open_graph(sys.argv[2], manifest, threads=1)
decoder = Decoder(graph, Cache(graph.layers, batch=2, capacity=64, dtype=graph.cache_dtype))
ids = np.arange(20) * 7 % manifest.vocabulary
found = [decoder.feed(0, ids, start=0).tolist(), decoder.feed(1, ids[:5], start=0).tolist()]
found.append(decoder.step([3, 4], [21, 6]).tolist())
print(json.dumps([onnxruntime.__version__, found]))
"""


@pytest.fixture(scope="module")
def oldest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("onnxruntime")
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--only-binary=:all:",
        "--dest",
        str(folder),
    ]
    if subprocess.run(
        [*command, f"onnxruntime=={OLDEST}"], capture_output=True, check=False
    ).returncode:
        pytest.skip(f"onnxruntime {OLDEST} cannot be fetched for this Python")
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        wheel.extractall(folder / "site")
    return folder / "site"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("precision", "tolerance"), [("fp32", 1e-5), ("fp16", 2e-2), ("int8", 0.2), ("int4", 0.5)]
)
def test_the_oldest_runtime_says_the_same(
    precision: str, tolerance: float, oldest: Path, llama_bundle: MakeBundle, tmp_path: Path
) -> None:
    """Tolerances are absolute, on logits of about 3: 8-bit kernels of 1.26 do not round activations
    yet.
    """
    (tmp_path / "empty").mkdir()
    bundle = llama_bundle(precision)
    (old_version, old), (_, new) = (
        _logits(place, bundle) for place in (oldest, tmp_path / "empty")
    )
    assert old_version == OLDEST
    for one, other in zip(old, new, strict=True):
        np.testing.assert_allclose(one, other, atol=tolerance, rtol=0)


def _logits(place: Path, bundle: Path) -> tuple[str, list[list[list[float]]]]:
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(place), str(bundle)],
        capture_output=True,
        text=True,
        check=True,
    )
    version, found = json.loads(result.stdout.splitlines()[-1])
    return version, found


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with onnxruntime-web and the script that runs it in Node."""
    folder = tmp_path_factory.mktemp("web")
    if shutil.which("npm") is None or shutil.which("node") is None:
        pytest.skip("needs node and npm")
    command = [
        "npm",
        "install",
        "--no-audit",
        "--no-fund",
        "--ignore-scripts",
        f"onnxruntime-web@{WEB}",
    ]
    if subprocess.run(command, cwd=folder, capture_output=True, check=False).returncode:
        pytest.skip("onnxruntime-web cannot be fetched")
    shutil.copy(Path(__file__).with_name("web.mjs"), folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-4), ("int8", 0.3), ("int4", 0.5)])
def test_webassembly_says_the_same(
    precision: str, tolerance: float, web: Path, llama_bundle: MakeBundle, tmp_path: Path
) -> None:
    """Tolerances are absolute, on logits of about 3: quantised kernels round activations in their
    own ways.
    """
    (tmp_path / "empty").mkdir()
    bundle = llama_bundle(precision)
    program = ["node", "web.mjs", str(bundle)]
    result = subprocess.run(program, cwd=web, capture_output=True, text=True, check=True)
    prompt, step = json.loads(result.stdout.splitlines()[-1])
    _, (expected_prompt, _, expected_step) = _logits(tmp_path / "empty", bundle)
    np.testing.assert_allclose(prompt, np.ravel(expected_prompt), atol=tolerance, rtol=0)
    np.testing.assert_allclose(step, expected_step[0], atol=tolerance, rtol=0)
