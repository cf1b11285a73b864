"""The picture of a tenant's index: its cells on a plane, and what the last calibration found."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from eval.client import Json

_LARGEST = 1400.0
"""Area of the largest cell, in square points."""
_BELOW = "#c62828"


def draw(slug: str, shown: Json, path: Path) -> None:
    """Write the picture, in the format of the file's ending (png, svg, pdf)."""
    figure = Figure(figsize=(13, 6), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=[3, 2])
    figure.suptitle(
        f"{slug}: {shown['rows']:,} chunks in {len(shown['cells'])} cells, generation {shown['generation']}"
    )
    _draw_cells(figure, left, shown)
    _draw_curve(right, shown)
    figure.savefig(path, dpi=120)


def _draw_cells(figure: Figure, axes: Axes, shown: Json) -> None:
    cells, target = shown["cells"], shown["calibration"]["target"] if shown["calibration"] else 1.0
    most = max(max(cell["rows"] for cell in cells), 1)
    low = [cell["recall"] is not None and cell["recall"] < target for cell in cells]
    points = axes.scatter(
        [cell["x"] for cell in cells],
        [cell["y"] for cell in cells],
        s=[max(4.0, _LARGEST * cell["rows"] / most / max(1.0, len(cells) / 60)) for cell in cells],
        c=[cell["heat"] for cell in cells],
        cmap="YlOrBr",
        alpha=0.85,
        edgecolors=[_BELOW if below else "#607d8b" for below in low],
        linewidths=[1.8 if below else 0.5 for below in low],
    )
    figure.colorbar(points, ax=axes, label="heat: visits, halved every hour", shrink=0.8)
    axes.set_title(
        f"Cells: area = rows, red outline = recall below {target:g} ({sum(low)} of {len(cells)})", fontsize=10
    )
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_xlabel("like content lies near (two principal components of the cells' means)", fontsize=8)


def _draw_curve(axes: Axes, shown: Json) -> None:
    known, seen = shown["calibration"], shown["recall"]
    axes.set_xlabel("rows visited, % of the tenant")
    axes.set_ylabel("recall@10")
    if known is None:
        axes.text(0.5, 0.5, "no calibration: so few rows are all compared", ha="center", transform=axes.transAxes)
        return
    curve = known["curve"]
    shares = [100 * share for share in curve["rows_share"]]
    axes.plot(shares, curve["recall"], color="#1565c0", label=f"{known['questions']} {known['source']}")
    axes.axhline(known["target"], color="#607d8b", linestyle=":", label=f"target {known['target']:g}")
    axes.plot([100 * known["rows_share"]], [known["recall"]], "o", color="#1565c0", label="chosen threshold")
    if seen is not None:
        middle, low, high = seen["recall"], seen["low"], seen["high"]
        axes.errorbar(
            [100 * seen["rows_share"]],
            [middle],
            yerr=[[middle - low], [high - middle]],
            fmt="s",
            color=_BELOW,
            capsize=4,
            label=f"measured on {seen['samples']} live questions",
        )
    reached = [share for share, recall in zip(shares, curve["recall"], strict=True) if recall < 0.999]
    axes.set_xlim(0, max([*reached, 100 * known["rows_share"] * 2]) * 1.05)
    axes.set_ylim(min(curve["recall"][0], known["target"]) - 0.05, 1.005)
    axes.set_title("Last calibration", fontsize=10)
    axes.legend(loc="lower right", fontsize=9)
    axes.grid(alpha=0.25)
