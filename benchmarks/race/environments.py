"""One virtual environment for each peer, and two for converting, all of packages from PyPI.

A peer's environment holds what its user would install to run a converted model, so that its size
can be compared; whatever only conversion needs stands in environments of its own. `python -m
benchmarks.race build` makes what is missing.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
TORCH = (
    "torch==2.13.0"  # the release whose CPU build is small; a newer one brings gigabytes of CUDA
)
EDGEPREFIX = "edgeprefix"  # stands for this work tree


@dataclass(frozen=True, kw_only=True)
class Environment:
    """What is installed into one virtual environment."""

    packages: tuple[str, ...]
    from_source: str | None = None
    """A package that is built here, with this machine's instructions."""
    absent: tuple[str, ...] = ()
    """Packages that break this environment and are removed again."""


ENVIRONMENTS = {
    "ours": Environment(packages=(EDGEPREFIX, "onnxruntime==1.32.0")),
    "llama": Environment(packages=("numpy",), from_source="llama-cpp-python==0.3.36"),
    "genai": Environment(packages=("onnxruntime-genai==0.18.0",)),
    "openvino": Environment(packages=("openvino-genai==2026.4.1.0",)),
    "ctranslate2": Environment(packages=("ctranslate2==4.8.5",)),
    "optimum": Environment(
        packages=(TORCH, "optimum-onnx[onnxruntime]==0.1.0", "transformers==4.57.6")
    ),
    "peft": Environment(packages=(TORCH, "transformers==5.23.0", "peft==0.21.2")),
    "convert": Environment(
        packages=(
            TORCH,
            f"{EDGEPREFIX}[export]",
            "transformers==5.23.0",
            "onnxruntime==1.32.0",
            "onnxruntime-genai==0.18.0",
            "gguf==0.19.0",
            "ctranslate2==4.8.5",
        )
    ),
    "convert_openvino": Environment(
        packages=(TORCH, "optimum-intel[openvino]==2.2.0", "openvino-tokenizers", "nncf==3.4.0"),
        absent=("torchvision",),
    ),
}


def python_of(work: Path, name: str) -> Path:
    """The interpreter of an environment, made or not."""
    return work / "environments" / name / "bin" / "python"


def build(work: Path, names: list[str]) -> None:
    """Makes the environments that are missing; `ours` and `convert` get this work tree as it is
    now.
    """
    for name in names:
        folder = python_of(work, name).parents[1]
        if not (folder / "installed").is_file():
            _make(work, folder, ENVIRONMENTS[name])
        elif _holds_us(ENVIRONMENTS[name]):
            _pip(folder, "install", "--force-reinstall", "--no-deps", str(ROOT))


def site_bytes(work: Path, name: str) -> int:
    """Bytes that an environment's packages take, without pip, setuptools and compiled caches."""
    site = next((python_of(work, name).parents[1] / "lib").glob("python3.*/site-packages"))
    tools = ("pip", "setuptools", "wheel", "pkg_resources", "_distutils_hack")
    files = (path for path in site.rglob("*") if path.is_file() and path.suffix != ".pyc")
    return sum(
        path.stat().st_size
        for path in files
        if path.relative_to(site).parts[0].split("-")[0] not in tools
    )


def versions(work: Path, name: str) -> dict[str, str]:
    """Installed packages and their versions."""
    listed = subprocess.run(
        [
            python_of(work, name),
            "-m",
            "pip",
            "list",
            "--format=freeze",
            "--disable-pip-version-check",
        ],
        check=True,
        capture_output=True,
        text=True,
    )
    return dict(line.split("==", 1) for line in listed.stdout.splitlines() if "==" in line)


def _make(work: Path, folder: Path, environment: Environment) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    packages = [
        package.replace(EDGEPREFIX, str(ROOT), 1) if package.startswith(EDGEPREFIX) else package
        for package in environment.packages
    ]
    if environment.from_source:
        packages.append(str(_native_wheel(work, folder, environment.from_source)))
    _pip(folder, "install", *packages)
    if environment.absent:
        _pip(folder, "uninstall", "--yes", *environment.absent)
    (folder / "installed").write_text("\n".join(environment.packages))


def _native_wheel(work: Path, folder: Path, requirement: str) -> Path:
    """Builds a wheel from PyPI's source package with this machine's instructions, once."""
    name, _, version = requirement.partition("==")
    pattern = f"{name.replace('-', '_')}-{version}-*.whl"
    wheels = work / "wheels"
    if not list(wheels.glob(pattern)):
        native = {"CMAKE_ARGS": "-DGGML_NATIVE=ON -DCMAKE_BUILD_TYPE=Release"}
        command = (
            "wheel",
            "--no-binary",
            name,
            "--no-deps",
            "--no-cache-dir",
            "--wheel-dir",
            str(wheels),
            requirement,
        )
        _pip(folder, *command, extra=native)
    return next(wheels.glob(pattern))


def _pip(folder: Path, *arguments: str, extra: dict[str, str] | None = None) -> None:
    command = [
        folder / "bin" / "python",
        "-m",
        "pip",
        "--disable-pip-version-check",
        "--quiet",
        *arguments,
    ]
    subprocess.run(command, check=True, env={**os.environ, **(extra or {})})


def _holds_us(environment: Environment) -> bool:
    return any(package.startswith(EDGEPREFIX) for package in environment.packages)
