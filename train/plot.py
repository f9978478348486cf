"""RUN/curve.png: training and validation loss, and the metric when it is another one."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

from edgeprefix.runtime.errors import MissingExtraError

_INK, _TRAIN, _VALIDATION, _METRIC = "#24292f", "#9db8d9", "#1f5fa8", "#c2571a"


def draw_curve(
    entries: Sequence[Mapping[str, Any]], *, title: str, metric: str, best_step: int
) -> bytes:
    """Draws metrics.jsonl's entries as a PNG. Raises MissingExtraError without matplotlib."""
    # The object interface with the Agg canvas: no display, and no global state of the caller's
    # matplotlib is touched.
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            "the curve is left out, since the package matplotlib is not installed; type: pip "
            "install 'edgeprefix[train]'"
        ) from error
    figure = Figure(figsize=(7.5, 4.2), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    _line(axes, entries, "loss", color=_TRAIN, label="training", width=1.2)
    _line(axes, entries, "validation_loss", color=_VALIDATION, label="validation", width=2.0)
    axes.set_xlabel("step", color=_INK)
    axes.set_ylabel("loss per target token (nats)", color=_INK)
    axes.set_title(title, loc="left", color=_INK, fontsize=11)
    axes.grid(axis="y", color="#e6e8eb", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    if best_step:
        axes.axvline(
            best_step, color=_INK, linewidth=0.8, linestyle=":", label=f"best (step {best_step})"
        )
    handles, labels = axes.get_legend_handles_labels()
    if metric != "loss":
        right = axes.twinx()
        _line(right, entries, metric, color=_METRIC, label=metric, width=1.6)
        right.set_ylabel(metric, color=_METRIC)
        right.spines["top"].set_visible(False)
        more = right.get_legend_handles_labels()
        handles, labels = handles + more[0], labels + more[1]
    axes.legend(handles, labels, frameon=False, fontsize=9)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", metadata={"Software": "edgeprefix"})
    return picture.getvalue()


def _line(
    axes: Any,
    entries: Sequence[Mapping[str, Any]],
    key: str,
    *,
    color: str,
    label: str,
    width: float,
) -> None:
    points = [(entry["step"], entry[key]) for entry in entries if entry.get(key) is not None]
    if points:
        axes.plot(*zip(*points, strict=True), color=color, label=label, linewidth=width)
