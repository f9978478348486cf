"""A result as a picture: decoding speed and time to the first token of every peer, a panel for each
model.

Needs matplotlib, which the extra `train` brings.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.race.cells import CELLS
from benchmarks.race.field import PRECISIONS
from benchmarks.race.result import Result

SHOWN = ("decode_128", "first_128")
COLOURS = {"fp32": "#9aa5b1", "int8": "#4c86c6", "int4": "#d9822b"}
PANEL_INCHES = (4.6, 3.4)


def draw(result: Result, out: Path) -> None:
    """Writes an SVG or PNG, by the name's ending."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams.update({"font.size": 8, "svg.fonttype": "none", "svg.hashsalt": "race"})
    import matplotlib.pyplot as plt

    models = list(result["models"])
    width, height = PANEL_INCHES
    figure, panels = plt.subplots(
        len(models),
        len(SHOWN),
        figsize=(width * len(SHOWN), height * len(models)),
        squeeze=False,
        layout="constrained",
    )
    for row, model in zip(panels, models, strict=True):
        for panel, cell in zip(row, SHOWN, strict=True):
            _bars(panel, result, model, cell)
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(PRECISIONS), frameon=False)
    figure.savefig(out, dpi=120, metadata={"Date": None} if out.suffix == ".svg" else None)
    plt.close(figure)


def _bars(panel: Any, result: Result, model: str, cell: str) -> None:
    """A group of bars for each peer, one for each precision, with the rounds' least and most as
    whiskers.
    """
    peers = list(result["peers"])
    found = {
        (one["peer"], one["precision"]): one["value"]
        for one in result["cells"]
        if one["model"] == model and one["cell"] == cell and one["value"]
    }
    thick = 0.8 / len(PRECISIONS)
    for number, precision in enumerate(PRECISIONS):
        there = [
            (place, found[peer, precision])
            for place, peer in enumerate(peers)
            if (peer, precision) in found
        ]
        middles = [value["median"] for _, value in there]
        spread = [
            [value["median"] - value["least"] for _, value in there],
            [value["most"] - value["median"] for _, value in there],
        ]
        heights = [place + (number - 1) * thick for place, _ in there]
        panel.barh(
            heights,
            middles,
            thick,
            xerr=spread,
            color=COLOURS[precision],
            label=precision,
            error_kw={"linewidth": 0.7},
        )
    panel.set_yticks(range(len(peers)), [result["peers"][peer]["title"] for peer in peers])
    panel.invert_yaxis()
    better = "more is better" if CELLS[cell].higher_is_better else "less is better"
    panel.set_title(
        f"{result['models'][model]['title']}: {CELLS[cell].title}, {CELLS[cell].unit} ({better})"
    )
    panel.spines[["top", "right"]].set_visible(False)
