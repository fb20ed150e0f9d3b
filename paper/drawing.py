"""What the scripts of the figures share: where their output goes, curves from arrays, and drawings as files."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from part import figure

from ropewalk.record import write_text
from ropewalk.reports.figures import Figure
from ropewalk.reports.lines import Axis, Chart, Layout, Line, Mark, Rule, line_chart
from ropewalk.reports.standalone import ALONE, HALF_ALONE, standalone
from ropewalk.reports.svg import linear_ticks, log_ticks

RESULTS = Path(__file__).parent / "results"


def options(description: str | None) -> argparse.ArgumentParser:
    """What every script takes."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for drawings and tables (%(default)s)")
    return parser


def curve(label: str, tint: int, x: np.ndarray, y: np.ndarray, *, dashed: bool = False) -> Line:
    """A line without dots through (x, y)."""
    marks = tuple(Mark(float(a), float(b)) for a, b in zip(x, y, strict=True))
    return Line(label, tint, marks, dashed=dashed, dots=False)


def axis(title: str, values: np.ndarray | Sequence[float], *, log: bool = False, room: float = 0.04) -> Axis:
    """An axis that holds all values, with some room on both sides."""
    lo, hi = float(np.min(values)), float(np.max(values))
    if log:
        span = (hi / lo) ** room
        return Axis(title, lo / span, hi * span, True, tuple(log_ticks(lo / span, hi * span)))
    span = room * (hi - lo)
    return Axis(title, lo - span, hi + span, False, tuple(linear_ticks(lo - span, hi + span, 5)))


def saved(
    path: Path, lines: Sequence[Line], x: Axis, y: Axis, summary: str, rules: Sequence[Rule] = (),
    layout: Layout = ALONE,
) -> Figure:  # fmt: skip
    """Draws a chart into the .svg file `path`, says where it is, and gives the same for the page."""
    chart = Chart(tuple(lines), x, y, tuple(rules), summary)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, standalone(line_chart(chart, layout)))
    print(path)
    return figure(summary, chart, half=layout is HALF_ALONE)
