"""One part of the page: tables, drawings and findings of a script, as a .json of numbers and an .html fragment.

The fragment is what the page shows; the json has the same numbers and the facts that claims are decided by. Both are
written last, whole or not at all, so a part that is there is done.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2

import ropewalk.reports
from ropewalk.record import write_json, write_text
from ropewalk.reports.figures import HALF, PHONE, WHOLE, Figure
from ropewalk.reports.lines import Chart, line_chart

TEMPLATES = [Path(__file__).parent, Path(ropewalk.reports.__file__).parent]


@dataclass(frozen=True)
class Cell:
    """What stands in a table: a value in words, its uncertainty, and the paper's value where there is one to compare."""

    text: str
    error: str = ""
    paper: str = ""

    @property
    def plain(self) -> str:
        return " ".join(part for part in (self.text, self.error, self.paper and f"[{self.paper}]") if part)


@dataclass(frozen=True)
class Table:
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str | Cell]]
    note: str = ""

    def plain(self) -> str:
        """As text, columns side by side."""
        cells = [list(self.columns), *([c.plain if isinstance(c, Cell) else c for c in row] for row in self.rows)]
        widths = [max(len(row[i]) for row in cells) for i in range(len(self.columns))]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells
        ]
        return "\n".join([self.title, *lines, *([self.note] if self.note else [])])

    def markdown(self) -> str:
        rows = [self.columns, ["---"] * len(self.columns), *self.rows]
        written = [[(c.plain if isinstance(c, Cell) else c).replace("|", "\\|") for c in row] for row in rows]
        return "".join(f"| {' | '.join(row)} |\n" for row in written)


@dataclass(frozen=True)
class Part:
    """`facts` are plain numbers by name, for `claims.py`. `findings` say what agrees with the paper and what does not."""

    name: str
    title: str
    lede: str = ""
    tables: Sequence[Table] = ()
    figures: Sequence[Figure] = ()
    findings: Sequence[str] = ()
    facts: dict[str, Any] = field(default_factory=dict)
    full: bool = False

    def plain(self) -> str:
        return "\n\n".join([self.title, *(table.plain() for table in self.tables), *self.findings])


def environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip


def figure(title: str, chart: Chart, *, half: bool = True, note: str = "") -> Figure:
    """A chart for a desktop and for a phone."""
    return Figure(title, line_chart(chart, HALF if half else WHOLE), line_chart(chart, PHONE), note)


def write_part(part: Part, out: Path) -> None:
    """Leaves NAME.html and NAME.json in the folder `out`, and prints the part."""
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / f"{part.name}.html", environment().get_template("part.html.j2").render(part=part))
    told = {key: value for key, value in dataclasses.asdict(part).items() if key not in ("figures", "full")}
    write_json(out / f"{part.name}.json", told)
    print(part.plain(), flush=True)
