"""A line chart: axes, rules, lines with error bars and markers, and a label at the end of each line.

Labels stand beside their lines, pushed apart where lines end together and tied to them by a thin leader, so that a
reader never looks up a legend.
"""

from dataclasses import dataclass

from markupsafe import Markup

from ropewalk.reports.svg import Scale, element, fitted, marker, path, spread, tick_text, width

LABELS = 0.4  # labels take no more than this part of the width


@dataclass(frozen=True)
class Mark:
    x: float
    y: float
    error: float | None = None
    hollow: bool = False
    tip: str = ""


@dataclass(frozen=True)
class Line:
    """One arm. `faint` is drawn thin behind it; without `dots` only the line is drawn."""

    label: str
    tint: int
    marks: tuple[Mark, ...]
    dashed: bool = False
    dots: bool = True
    faint: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True)
class Axis:
    title: str
    lo: float
    hi: float
    log: bool
    ticks: tuple[float, ...]


@dataclass(frozen=True)
class Rule:
    """A dashed line at a value of one axis, with its name."""

    at: float
    label: str
    horizontal: bool = False


@dataclass(frozen=True)
class Chart:
    """What is drawn, at any size. `summary` is what a reader who cannot see it is told."""

    lines: tuple[Line, ...]
    x: Axis
    y: Axis
    rules: tuple[Rule, ...]
    summary: str


@dataclass(frozen=True)
class Layout:
    """The size in pixels at which a drawing is meant to be seen, and its text with it."""

    class_: str
    width: float
    height: float
    font: float


@dataclass(frozen=True)
class Frame:
    """Where the plot lies within its drawing."""

    left: float
    right: float
    top: float
    bottom: float
    x: Scale
    y: Scale
    font: float


def line_chart(chart: Chart, layout: Layout) -> Markup:
    """One `<svg>`."""
    frame = _frame(chart, layout)
    parts = [*_axes(chart, frame), *_rules(chart, frame), *(_line(line, frame) for line in chart.lines)]
    return drawing(layout, layout.height, chart.summary, [*parts, *_labels(chart, frame, layout)])


def drawing(layout: Layout, height: float, summary: str, parts: list[Markup]) -> Markup:
    """The outer element: it scales with the page and has a name for those who cannot see it."""
    return element(
        "svg",
        *parts,
        class_=f"chart {layout.class_}",
        viewBox=f"0 0 {layout.width:g} {height:g}",
        role="img",
        aria_label=summary,
        font_size=layout.font,
    )


def _frame(chart: Chart, layout: Layout) -> Frame:
    font = layout.font
    y_labels = max(width(tick_text(tick), font) for tick in chart.y.ticks) if chart.y.ticks else 0.0
    names = [(line.label, not line.dashed) for line in chart.lines]
    names += [(rule.label, False) for rule in chart.rules if rule.horizontal]
    ends = max((width(fitted(name, font, layout.width * LABELS), font, bold) for name, bold in names), default=0.0)
    left, right = y_labels + 10, layout.width - ends - 20
    top = font * 2.1 + (font * 1.3 if any(not rule.horizontal for rule in chart.rules) else 0)
    bottom = layout.height - font * 3.1
    x = Scale(chart.x.lo, chart.x.hi, left + 8, right - 4, chart.x.log)
    return Frame(left, right, top, bottom, x, Scale(chart.y.lo, chart.y.hi, bottom, top, chart.y.log), font)


def _axes(chart: Chart, frame: Frame) -> list[Markup]:
    parts = [element("text", chart.y.title, class_="axis", x=0, y=frame.font)]
    for tick in chart.y.ticks:
        at = frame.y(tick)
        parts.append(element("path", class_="grid", d=path([(frame.left, at), (frame.right, at)])))
        anchor = {"text_anchor": "end", "class_": "tick"}
        parts.append(element("text", tick_text(tick), x=frame.left - 6, y=at + frame.font * 0.34, **anchor))
    parts.append(element("path", class_="edge", d=path([(frame.left, frame.bottom), (frame.right, frame.bottom)])))
    clear = float("inf")
    for tick in reversed(chart.x.ticks):
        at, half = frame.x(tick), width(tick_text(tick), frame.font) / 2
        parts.append(element("path", class_="edge", d=path([(at, frame.bottom), (at, frame.bottom + 5)])))
        if at + half > clear:
            continue  # no room for its number beside the next one's
        clear = at - half - 4
        anchor = {"text_anchor": "middle", "class_": "tick"}
        parts.append(element("text", tick_text(tick), x=at, y=frame.bottom + frame.font * 1.35, **anchor))
    middle = (frame.left + frame.right) / 2
    title = {"text_anchor": "middle", "class_": "axis"}
    parts.append(element("text", chart.x.title, x=middle, y=frame.bottom + frame.font * 2.75, **title))
    return parts


def _rules(chart: Chart, frame: Frame) -> list[Markup]:
    parts, taken = [], -1e9
    for rule in sorted(chart.rules, key=lambda rule: rule.at):
        if rule.horizontal:
            at = frame.y(rule.at)
            parts.append(element("path", class_="rule", d=path([(frame.left, at), (frame.right, at)])))
            continue  # its name stands among the labels of the lines, where no line can cross it
        at, half = frame.x(rule.at), width(rule.label, frame.font) / 2
        # Windows a factor of two apart stand close: the second name moves right rather than over the first.
        middle = max(at, taken + half + 6)
        taken = middle + half
        parts.append(element("path", class_="rule", d=path([(at, frame.top - 2), (at, frame.bottom)])))
        parts.append(element("text", rule.label, class_="note", x=middle, y=frame.top - 8, text_anchor="middle"))
    return parts


def _line(line: Line, frame: Frame) -> Markup:
    points = [(frame.x(mark.x), frame.y(mark.y)) for mark in line.marks]
    parts = []
    if line.faint:
        parts.append(element("path", class_="raw", d=path([(frame.x(x), frame.y(y)) for x, y in line.faint])))
    if len(points) > 1:
        parts.append(element("path", class_="line dashed" if line.dashed else "line", d=path(points)))
    for mark, (x, y) in zip(line.marks, points, strict=True):
        if mark.error:
            ends = [(x, frame.y(mark.y - mark.error)), (x, frame.y(mark.y + mark.error))]
            parts.append(element("path", class_="error", d=path(ends)))
        if line.dots:
            kind = "dot hollow" if mark.hollow else "dot"
            parts.append(marker(line.tint, x, y, 3.6 if line.dashed else 4.4, kind, mark.tip))
    return element("g", *parts, class_=f"t{line.tint}")


def _labels(chart: Chart, frame: Frame, layout: Layout) -> list[Markup]:
    named = [
        (line.label, f"t{line.tint}", "label untuned" if line.dashed else "label", line.marks[-1].x, line.marks[-1].y)
        for line in chart.lines
        if line.marks
    ]
    named += [(rule.label, "rule-name", "note", chart.x.hi, rule.at) for rule in chart.rules if rule.horizontal]
    wanted = [frame.y(y) for *_, y in named]
    places = spread(wanted, frame.font * 1.18, frame.top, frame.bottom - 2)
    parts = []
    for (label, group, kind, end, _), y, place in zip(named, wanted, places, strict=True):
        x = frame.x(end) + 7
        leader = path([(x, y), (max(x, frame.right), y), (frame.right + 9, place), (frame.right + 13, place)])
        at = {"x": frame.right + 17, "y": place + frame.font * 0.34}
        name = element("text", fitted(label, frame.font, layout.width * LABELS), class_=kind, **at)
        parts.append(element("g", element("path", class_="leader", d=leader), name, class_=group))
    return parts
