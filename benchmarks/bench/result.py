"""From findings to a report: facts of the bundle, limits by bandwidth, what was skipped and why,
and warnings.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from edgeprefix.bench.bench import Findings
from edgeprefix.bench.cells import Cell, Setup
from edgeprefix.bench.company import BUSY_SHARE, Shares
from edgeprefix.bench.machine_card import versions
from edgeprefix.bench.report import Measurement, Report
from edgeprefix.runtime.contracts.manifest import Manifest

_WIDE_SPREAD = 0.15  # quartiles that lie further apart, measured on the median


def make_report(
    findings: Findings,
    setup: Setup,
    manifest: Manifest,
    *,
    weight_bytes: int,
    card: Mapping[str, Any],
    settings: Mapping[str, Any],
    cells: Sequence[Cell],
    unfit: Sequence[tuple[str, str]],
) -> Report:
    """What was found, in the order of the kinds; `card` was taken before the bench began, `unfit`
    cells never had a chance.
    """
    bundle = bundle_facts(setup.bundle, manifest, weight_bytes)
    found = findings.collector
    measurements = [
        found.measurement(cell, _limit(cell, findings, bundle))
        for cell in cells
        if cell in found.cells
    ]
    return Report(
        created=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        complete=findings.complete,
        bundle=bundle,
        settings=settings,
        machine=card,
        versions=versions(),
        bandwidth=findings.bandwidth,
        memory=findings.memory | {"files": bundle["file_bytes"]},
        circumstances=_circumstances(findings),
        measurements=tuple(measurements),
        skipped=(*unfit, *_skipped(findings, cells)),
        warnings=tuple(_warnings(findings, card, measurements)),
    )


def bundle_facts(folder: Path, manifest: Manifest, weight_bytes: int) -> dict[str, Any]:
    """What the numbers depend on. Cache bytes are those of one position in all layers."""
    size = np.dtype(manifest.cache_dtype).itemsize
    return {
        "name": folder.resolve().name,
        "base": manifest.base.name,
        "base_sha256": manifest.base.sha256,
        "model_type": manifest.model_type,
        "precision": manifest.precision,
        "layers": len(manifest.layers),
        "vocabulary": manifest.vocabulary,
        "max_positions": manifest.max_positions,
        "file_bytes": sum(record.bytes for record in manifest.files.values()),
        "weight_bytes_per_step": weight_bytes,
        "cache_bytes_per_position": sum(
            2 * layer.kv_heads * layer.head_size * size for layer in manifest.layers
        ),
        "made_with": dict(manifest.made_with),
    }


def limit_tokens_per_s(
    bandwidth: float, *, weight_bytes: int, cache_bytes_per_position: int, batch: int, context: int
) -> float:
    """What reading weights (once a step) and cache (for every row) leaves, whatever the kernels:
    bandwidth in bytes/s.
    """
    return batch * bandwidth / max(weight_bytes + batch * context * cache_bytes_per_position, 1)


def _limit(cell: Cell, findings: Findings, bundle: Mapping[str, Any]) -> float | None:
    """The best sample counts, as a limit should; over a working set of the weights' size, which a
    cache may hold.
    """
    if cell.kind != "decode" or "weights" not in findings.bandwidth:
        return None
    return limit_tokens_per_s(
        findings.bandwidth["weights"].most,
        weight_bytes=bundle["weight_bytes_per_step"],
        cache_bytes_per_position=bundle["cache_bytes_per_position"],
        batch=cell.batch or 1,
        context=cell.context or 0,
    )


def _circumstances(findings: Findings) -> dict[str, Any]:
    def share(shares: Shares | None, name: str) -> float | None:
        return None if shares is None else round(getattr(shares, name), 4)

    return {
        "seconds": round(findings.seconds, 1),
        "rounds": None if findings.plan is None else findings.plan.rounds,
        "others_before": share(findings.before, "others"),
        "others_during": share(findings.during, "others"),
        "steal_during": share(findings.during, "steal"),
        "first_start_ms": findings.first_start_ms,
        "torch_loaded": findings.torch_loaded,
    }


def _skipped(findings: Findings, cells: Sequence[Cell]) -> Iterator[tuple[str, str]]:
    planned_out = (
        {candidate.cell: candidate for candidate in findings.plan.skipped} if findings.plan else {}
    )
    rounds = findings.plan.rounds if findings.plan else 0
    for cell in cells:
        if cell in planned_out:
            yield (
                f"{cell.label} (about {planned_out[cell].seconds(rounds):.1f} s)",
                "beyond the budget",
            )
        elif cell not in findings.collector.cells:
            yield cell.label, "the time was over" if findings.complete else "interrupted"


def _warnings(
    findings: Findings, card: Mapping[str, Any], measurements: Sequence[Measurement]
) -> Iterator[str]:
    before, during = findings.before, findings.during
    if before is not None and before.others > BUSY_SHARE:
        yield (
            f"The machine was busy before the start: other processes used {before.others:.0%} of "
            "its cores."
        )
    if during is not None and during.others > BUSY_SHARE:
        yield (
            f"Other processes used {during.others:.0%} of the cores during the bench: the numbers "
            "are too slow. Measure again."
        )
    if during is not None and during.steal > BUSY_SHARE:
        yield (
            f"The hypervisor gave {during.steal:.0%} of the cores' time to others: the numbers are "
            "too slow."
        )
    if (governor := card.get("governor")) not in (None, "performance"):
        yield (
            f"The governor is {governor!r}: the clock may be low at first; `cpupower frequency-set "
            "-g performance` fixes it."
        )
    wide = [one.cell.label for one in measurements if _is_wide(one)]
    if wide:
        more = f" and {len(wide) - 3} more" if len(wide) > 3 else ""
        yield (
            f"Rounds of {'; '.join(wide[:3])}{more} lie far apart (quartiles over "
            f"{_WIDE_SPREAD:.0%}): read these with care."
        )
    if findings.torch_loaded:
        yield (
            "torch was loaded in a measuring process; memory and start times are not those of the "
            "runtime alone."
        )
    if not findings.complete:
        yield "The bench was interrupted; this is what had been measured."


def _is_wide(measurement: Measurement) -> bool:
    main = {"decode": "tokens_per_s", "prefill": "first_token_ms", "cold_start": "total_ms"}.get(
        measurement.cell.kind
    )
    if main is None or len(measurement.numbers[main].samples) < 3:
        return False
    low, high = measurement.numbers[main].quartiles
    return high - low > _WIDE_SPREAD * measurement.numbers[main].value
