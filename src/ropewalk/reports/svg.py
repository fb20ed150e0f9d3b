"""SVG by hand: elements, scales, ticks, and where labels go so that none covers another.

Colours are never written here: an element has a class, and the page's style sheet has the colours for light and dark.
Every text goes through `element`, which escapes it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

CHARACTER = 0.6  # mean width of a character in font sizes, in the widest of the usual system fonts
BOLD = 0.68


@dataclass(frozen=True)
class Scale:
    """Data -> user units, linear or logarithmic. Values outside are drawn on the edge."""

    lo: float
    hi: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        lo, hi, at = (math.log(v) if self.log else v for v in (self.lo, self.hi, min(max(value, self.lo), self.hi)))
        return self.start + (self.end - self.start) * ((at - lo) / (hi - lo) if hi > lo else 0.5)


def element(tag: str, *children: str | Markup, **attributes: object) -> Markup:
    """One element. Text and attribute values are escaped; `class_` is class, `text_anchor` is text-anchor."""
    written = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(short(value))}"'
        for name, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{tag}{written}>{''.join(escape(child) for child in children)}</{tag}>")


def short(value: object) -> object:
    """A coordinate with one decimal: a tenth of a pixel is more than a screen shows."""
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else value


def path(points: Sequence[tuple[float, float]]) -> str:
    """The `d` of a line through `points`."""
    return "M" + "L".join(f"{short(float(x))},{short(float(y))}" for x, y in points)


def width(text: str, font: float, bold: bool = False) -> float:
    """About how wide `text` will be; rather too wide than too narrow."""
    return len(text) * font * (BOLD if bold else CHARACTER)


def fitted(text: str, font: float, room: float) -> str:
    """`text`, cut with an ellipsis where it would be wider than `room`: names in records can be of any length.

    >>> fitted("YaRN untuned", 10, 200), fitted("YaRN untuned", 10, 50)
    ('YaRN untuned', 'YaRN u…')
    """
    most = max(1, int(room / (font * BOLD)))
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"


def marker(shape: int, x: float, y: float, size: float, class_: str, tip: str) -> Markup:
    """One of eight shapes around (x, y), of about the same area, with a tooltip."""
    corners = {
        1: [(0, 0)],
        2: [(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)],
        3: [(0, -1.25), (1.1, 0.75), (-1.1, 0.75)],
        4: [(0, -1.3), (1.3, 0), (0, 1.3), (-1.3, 0)],
        5: [(0, 1.25), (1.1, -0.75), (-1.1, -0.75)],
        6: [(-1.4, -0.6), (1.4, -0.6), (1.4, 0.6), (-1.4, 0.6)],
        7: [(-0.6, -1.4), (0.6, -1.4), (0.6, 1.4), (-0.6, 1.4)],
    }.get(shape, [(0, 0)])
    title = element("title", tip)
    if len(corners) == 1:
        return element("circle", title, class_=class_, cx=x, cy=y, r=size)
    outline = path([(x + dx * size, y + dy * size) for dx, dy in corners]) + "Z"
    return element("path", title, class_=class_, d=outline)


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Places as near as can be to `wanted`, in the same order, at least `gap` apart and within [low, high].

    >>> spread([10, 11, 50], 10, 0, 100)
    [5.5, 15.5, 50.0]
    """
    order = sorted(range(len(wanted)), key=lambda index: wanted[index])
    blocks: list[tuple[float, list[int]]] = []  # (first place, members `gap` apart); overlapping blocks are joined
    for index in order:
        members = [index]
        place = _clamped(wanted[index], low, high)
        while blocks and blocks[-1][0] + gap * len(blocks[-1][1]) > place:
            members = blocks.pop()[1] + members
            centre = sum(wanted[member] - gap * rank for rank, member in enumerate(members)) / len(members)
            place = _clamped(centre, low, high - gap * (len(members) - 1))
        blocks.append((place, members))
    places = [0.0] * len(wanted)
    for place, members in blocks:
        for rank, member in enumerate(members):
            places[member] = place + gap * rank
    return places


def _clamped(value: float, low: float, high: float) -> float:
    return float(max(low, min(value, high)))


def powers_of_two(lo: float, hi: float, most: int) -> list[int]:
    """Powers of two within [lo, hi], thinned from the top so that no more than `most` are left."""
    ticks = [2**power for power in range(max(0, math.ceil(math.log2(lo))), math.floor(math.log2(hi)) + 1)]
    return ticks[::-1][:: max(1, math.ceil(len(ticks) / most))][::-1]


def log_ticks(lo: float, hi: float) -> list[float]:
    """Round numbers within [lo, hi] for a logarithmic axis: between four and eight where the range allows."""
    powers = range(math.floor(math.log10(lo)) - 1, math.ceil(math.log10(hi)) + 1)
    for steps in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7), (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 9)):
        ticks = [step * 10.0**power for power in powers for step in steps if lo <= step * 10.0**power <= hi]
        if len(ticks) >= 4:
            return ticks[:: math.ceil(len(ticks) / 8)]
    return linear_ticks(lo, hi, 4)


def linear_ticks(lo: float, hi: float, about: int) -> list[float]:
    """About `about` round numbers within [lo, hi]."""
    rough = (hi - lo) / about
    if not rough > 0:
        return [lo]
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * 0.999)
    return [count * step for count in range(math.ceil(lo / step - 1e-9), math.floor(hi / step + 1e-9) + 1)]


def tick_text(value: float) -> str:
    """1024 as 1024, 32768 as 32k, 2.5 as 2.5."""
    if value >= 8192 and value % 1024 == 0:
        return f"{int(value) // 1024}k"
    if value >= 10000 and value % 1000 == 0:
        return f"{value:,.0f}"
    return f"{value:.10g}" if value < 1e6 else f"{value:.0e}".replace("e+0", "e")
