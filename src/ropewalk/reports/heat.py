"""The passkey figure: a row an arm, a cell a distance, filled by how often the key was found there."""

from collections.abc import Sequence

from markupsafe import Markup

from ropewalk.reports.arms import Arm
from ropewalk.reports.compare import PasskeyTable
from ropewalk.reports.figures import Figure
from ropewalk.reports.grids import Grid, columns_to
from ropewalk.reports.lines import Layout, drawing
from ropewalk.reports.sources import number, whole
from ropewalk.reports.svg import element, fitted, path, tick_text, width

PHONE = Layout("narrow", 358, 0, 14.5)
DESK = Layout("wide", 960, 0, 15)


def passkey_figures(tables: Sequence[PasskeyTable]) -> list[Figure]:
    """One figure a grid length."""
    names = {table.name for table in tables}
    return [
        Figure(
            (f"{table.name}, " if len(names) > 1 else "") + f"documents of {table.target} tokens",
            passkey_chart(table, DESK),
            passkey_chart(table, PHONE),
        )
        for table in tables
    ]


def passkey_chart(table: PasskeyTable, layout: Layout) -> Markup:
    """Rows of equal cells. On a phone a row's name stands above it, at a desk beside it."""
    beside = layout.class_ == "wide"
    font = layout.font
    room = layout.width * (0.3 if beside else 0.6)
    labels = [fitted(row_label(arm, table), font, room) for arm, _ in table.rows]
    left = (
        max(width("YaRN untuned", font), *(width(label, font, bold=True) for label in labels)) + 24 if beside else 0.0
    )
    right = layout.width - (font * 3.6 if beside else 0)
    top, pitch, height = font * 1.9, (32.0 if beside else 48.0), 22.0
    parts = []
    for index, ((arm, grid), label) in enumerate(zip(table.rows, labels, strict=True)):
        y = top + index * pitch + (0 if beside else font * 1.45)
        parts += _row(grid, table.original, left, right, y, height)
        text_y = y + height / 2 + font * 0.34 if beside else y - 6
        swatch = element("rect", class_="swatch", x=0, y=text_y - font * 0.72, width=11, height=11, rx=2)
        name = element("text", label, class_="label" if arm.tuned or arm.is_base else "label untuned", x=18, y=text_y)
        reach = "–" if grid.k_max is None else str(grid.k_max)
        place = {"x": layout.width, "y": text_y, "text_anchor": "end", "class_": "reach"}
        value = element("text", reach if beside else f"k_max {reach}", **place)
        parts.append(element("g", swatch, name, value, class_=f"t{arm.tint}"))
    bottom = top + len(table.rows) * pitch
    parts += _distances(table, left, right, top, bottom, font)
    if beside:
        head = {"x": layout.width, "y": font, "text_anchor": "end", "class_": "note"}
        parts.append(element("text", "k_max", **head))
    return drawing(layout, bottom + font * 3.2, _summary(table, labels), parts)


def row_label(arm: Arm, table: PasskeyTable) -> str:
    """The arm's label, with its target where the rows have several."""
    targets = {other.target for other, _ in table.rows if not other.is_base}
    return f"{arm.label}, to {arm.target}" if len(targets) > 1 and not arm.is_base else arm.label


def cell_text(distance: int, accuracy: float | None, count: int | None) -> str:
    """`distance 512: 9 of 10`."""
    if accuracy is None:
        return f"distance {distance}: not measured"
    return f"distance {distance}: " + (f"{accuracy * count:.0f} of {count}" if count else f"{accuracy:.0%}")


def _row(grid: Grid, original: int | None, left: float, right: float, y: float, height: float) -> list[Markup]:
    step = (right - left) / len(grid.cells)
    gap = 1.5 if step > 8 else 0.6
    parts = []
    for column, cell in enumerate(grid.cells):
        accuracy = number(cell.value)
        title = element("title", cell_text(cell.length, accuracy, whole(cell.count)))
        box = {"x": left + column * step, "y": y, "width": step - gap, "height": height}
        if accuracy is None:
            parts.append(element("rect", title, class_="cell missing", **box))
            continue
        parts.append(element("rect", class_="cell", **box))
        fill = f"{min(max(accuracy, 0.0), 1.0):.2f}"
        parts.append(element("rect", title, class_="heat", fill_opacity=fill, **box))
    if original and original < grid.cells[-1].length:
        # Row by row rather than in one stroke: on a phone the names stand between the rows.
        x = left + columns_to(grid, original) * step - gap / 2
        parts.append(element("path", class_="rule over", d=path([(x, y - 3), (x, y + height + 3)])))
    if grid.k_max is not None:
        x = left + columns_to(grid, grid.k_max) * step - gap / 2
        parts.append(element("path", class_="tick-mark", d=path([(x, y - 3), (x, y + height + 3)])))
    return parts


def _distances(table: PasskeyTable, left: float, right: float, top: float, bottom: float, font: float) -> list[Markup]:
    """The axis under the rows and the rule at the original window, by the row with the most cells."""
    grid = max((grid for _, grid in table.rows), key=lambda grid: len(grid.cells))
    step = (right - left) / len(grid.cells)
    longest = grid.cells[-1].length
    parts = []
    for quarter in (1, 2, 3, 4):
        distance = table.target * quarter // 4
        x = left + columns_to(grid, min(distance, longest)) * step
        anchor = {"text_anchor": "end" if quarter == 4 else "middle", "class_": "tick"}
        parts.append(element("text", tick_text(distance), x=x, y=bottom + font * 1.1, **anchor))
    title = {"text_anchor": "middle", "class_": "axis"}
    parts.append(element("text", "distance of the key, tokens", x=(left + right) / 2, y=bottom + font * 2.6, **title))
    if table.original and table.original < longest:
        x = left + columns_to(grid, table.original) * step
        parts.append(element("path", class_="rule over", d=path([(x, font + 5), (x, top - 1)])))
        name = f"original window {table.original}"
        middle = min(max(x, left + width(name, font) / 2), right - width(name, font) / 2)
        parts.append(element("text", name, class_="note", x=middle, y=font, text_anchor="middle"))
    return parts


def _summary(table: PasskeyTable, labels: Sequence[str]) -> str:
    pairs = [(label, grid.k_max) for label, (_, grid) in zip(labels, table.rows, strict=True)]
    reaches = [f"{label} {k_max}" for label, k_max in pairs if k_max is not None]
    ends = f" k_max: {', '.join(reaches)}." if reaches else ""
    return f"Passkey accuracy by distance in documents of {table.target} tokens.{ends}"
