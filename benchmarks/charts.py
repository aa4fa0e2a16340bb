"""Draw one chart, for light and dark pages alike.

python charts.py FILE.svg < chart.json      {"panels": [{"title", "lines": [{"name", "x", "y"}]}], "x", "y", "log_x"}
"""

from __future__ import annotations

import json
import math
import sys

import matplotlib

matplotlib.use("svg")

from matplotlib import pyplot

INK = "#7a828e"  # legible on white and on black
MOST_IN_A_ROW = 3  # panels; above that two, which keeps their text legible
COLOURS = ("#0a84d6", "#e08a00", "#b455c8", "#d6403c", "#3a9d5d", "#8a6d3b", "#e377a8")

STYLE = {
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "svg.hashsalt": "tinysvc",
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def main(file: str) -> None:
    chart = json.load(sys.stdin)
    panels = chart["panels"]
    names = list(dict.fromkeys(line["name"] for panel in panels for line in panel["lines"]))
    with pyplot.rc_context(STYLE):
        columns = len(panels) if len(panels) <= MOST_IN_A_ROW else 2
        rows = math.ceil(len(panels) / columns)
        legend = 0.3 * math.ceil(len(names) / columns)  # inches
        height = 3.3 * rows + legend
        figure, axes = pyplot.subplots(rows, columns, figsize=(4.2 * columns, height), squeeze=False)
        for axis, panel in zip(axes.flat, panels, strict=True):
            for number, line in enumerate(panel["lines"]):
                look = {"color": COLOURS[names.index(line["name"])], "linewidth": max(1.0, 6 - 2 * number)}
                axis.plot(line["x"], line["y"], label=line["name"].replace("`", ""), **look)
            axis.set_title(panel["title"], fontsize=10)
            axis.set_xlabel(chart["x"])
            axis.set_ylim(bottom=0)
            axis.grid(color=INK, alpha=0.2)
            if chart["log_x"]:
                axis.set_xscale("log")
        for axis in axes[:, 0]:
            axis.set_ylabel(chart["y"])
        shown = {line.get_label(): line for axis in axes.flat for line in axis.lines}
        figure.legend(shown.values(), shown, loc="lower center", ncols=columns, frameon=False)
        figure.tight_layout(rect=(0, legend / height, 1, 1))
        figure.savefig(file, transparent=True, metadata={"Date": None})


if __name__ == "__main__":
    main(*sys.argv[1:])
