"""The demo's export stage: three prefix files, one bundle per precision, and how far each is from
torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgeprefix.demo.stages import Advance
from edgeprefix.export import ParityReport, export_decoder, export_prefix, verify
from edgeprefix.export.bundle import STAGES
from edgeprefix.runtime.errors import ParityError

PRECISIONS = ("fp32", "int8")


def write_prefixes(runs: Path, out: Path, names: Sequence[str], base: str) -> dict[str, Path]:
    """Exports every task's best prefix in half precision; gives the files by task."""
    files = {name: out / f"{name}.safetensors" for name in names}
    for name, file in files.items():
        export_prefix(runs / name, file, base=base, dtype="fp16")
    return files


def write_bundle(base: str, out: Path, *, precision: str, advance: Advance) -> int:
    """Exports the base as a bundle; gives its size in bytes."""

    def tell(stage: str, done: float) -> None:
        place = STAGES.index(stage)
        advance((place + done) / len(STAGES), stage)

    export_decoder(base, out, precision=precision, progress=tell)
    return sum(file.stat().st_size for file in out.iterdir())


def compare_with_torch(
    bundle: Path, base: str, prefixes: Sequence[Path], advance: Advance
) -> list[ParityReport]:
    """Verifies a bundle with every trained prefix. Raises ParityError when full precision is out of
    bounds.

    What quantised weights make of a prefix is a finding, which the report shows, and no reason to
    stop.
    """
    reports = []
    for index, prefix in enumerate(prefixes):
        advance(index / len(prefixes), prefix.stem)
        report = verify(bundle, base, prefix=prefix)
        if report.precision == "fp32" and not report.passed:
            raise ParityError(
                f"{bundle.name} with {prefix.name} differs from torch: {'; '.join(report.failures)}"
            )
        reports.append(report)
    return reports
