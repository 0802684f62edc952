"""Draw what bench.py has measured: docs/bench.svg from docs/bench.json."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Literal, TypeAlias

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

DOCS = Path(__file__).parents[2] / "docs"

Rows: TypeAlias = dict[str, dict[str, dict[str, Any]]]
Points: TypeAlias = dict[int, tuple[list[int], list[float]]]

# All of these can be read on white and on black.
INK = "#808080"
COLOURS = {
    "C": "#c98a1b",
    "raw sockets": "#9a6fc9",
    "pychrony 2.0.3": "#d9534f",
    "chronyc": INK,
    "pychrony": "#2f8fd8",
    "pychrony asyncio": "#2aa18a",
}
DASHES: dict[int, Literal["-", "--", ":"]] = {0: "-", 10: "--", 50: ":"}
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    # Else the names in the file would be others every time.
    "svg.hashsalt": "pychrony",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.alpha": 0.3,
    **dict.fromkeys(
        (
            *("text.color", "axes.edgecolor", "axes.labelcolor", "axes.titlecolor"),
            *("xtick.color", "ytick.color", "grid.color"),
        ),
        INK,
    ),
}


def draw(results: dict[str, Any]) -> None:
    tables = {part: table["rows"] for part, table in results["tables"].items()}
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8, 7.2), layout="constrained")
        axes = figure.subplot_mosaic(
            [["tracking", "tracking"], ["lists", "sweeps"]], height_ratios=[1, 1.7]
        )
        _tracking(axes["tracking"], tables["tracking"])
        _lines(axes["lists"], tables["lists"])
        axes["lists"].set_title("sources of one daemon")
        axes["lists"].set(xlabel="number of sources", ylabel="ms for the list")
        _lines(axes["sweeps"], tables["sweeps"])
        axes["sweeps"].set_title("tracking of many daemons")
        axes["sweeps"].set(xlabel="number of daemons", ylabel="daemons per second")
        figure.legend(
            handles=[
                *(Line2D([], [], color=c, label=name) for name, c in COLOURS.items()),
                *(
                    Line2D(
                        [], [], color=INK, linestyle=dashes, label=f"{delay} ms away"
                    )
                    for delay, dashes in DASHES.items()
                ),
            ],
            loc="outside lower center",
            ncols=5,
            frameon=False,
        )
        figure.savefig(
            DOCS / "bench.svg",
            format="svg",
            transparent=True,
            metadata={"Date": None, "Creator": None},
        )


def _tracking(axes: Axes, rows: Rows) -> None:
    """Draw bars, but write what is a hundred times longer."""
    cells = rows["all on one core"]
    names = [name for name in COLOURS if "typical" in cells[name] and name != "chronyc"]
    bars = axes.barh(
        names,
        [cells[name]["typical"] for name in names],
        color=[COLOURS[name] for name in names],
    )
    axes.bar_label(
        bars,
        [
            f"{cells[name]['typical']:.1f} µs"
            + (f" = {cells[name]['ratio']:.2f}x" if "ratio" in cells[name] else "")
            for name in names
        ],
        padding=4,
    )
    axes.invert_yaxis()
    axes.margins(x=0.2)
    axes.set_title(
        "tracking of the local chronyd, all on one core "
        f"(a chronyc process: {cells['chronyc']['typical']:,.0f} µs)"
    )
    axes.tick_params(left=False, bottom=False, labelbottom=False)
    axes.spines[:].set_visible(False)


def _lines(axes: Axes, rows: Rows) -> None:
    ticks: set[int] = set()
    for name, colour in COLOURS.items():
        for delay, (counts, medians) in _points(rows, name).items():
            axes.plot(
                counts,
                medians,
                color=colour,
                linestyle=DASHES[delay],
                marker="o",
                markersize=3,
                linewidth=2 if name == "pychrony" else 1,
            )
            ticks.update(counts)
    axes.set(xscale="log", yscale="log")
    axes.set_xticks(sorted(ticks))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:,.10g}")
    axes.minorticks_off()
    axes.grid(visible=True)


def _points(rows: Rows, name: str) -> Points:
    """Return the counts and medians by the distance, where nothing was lost or dead."""
    points: Points = {}
    for row, cells in rows.items():
        clean = re.fullmatch(r"([\d,]+) at (\d+) ms", row)
        if clean and "typical" in cells[name]:
            counts, medians = points.setdefault(int(clean[2]), ([], []))
            counts.append(int(clean[1].replace(",", "")))
            medians.append(cells[name]["typical"])
    return points


if __name__ == "__main__":
    draw(json.loads((DOCS / "bench.json").read_text()))
