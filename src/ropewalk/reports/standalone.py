"""A drawing as a file of its own: the page's colours and strokes go into it, so that it looks alike wherever it is shown."""

import re
from pathlib import Path

import jinja2
from markupsafe import Markup

from ropewalk.reports.lines import Layout
from ropewalk.reports.svg import element

ALONE = Layout("alone", 960, 440, 15)
HALF_ALONE = Layout("alone", 560, 400, 15)

_STYLE = "page.css.j2"
_DRAWN = re.compile(r"^(?:\.chart\b|\.t\d|\.rule-name)")


def standalone(drawn: Markup) -> str:
    """What `line_chart` drew, as the text of an .svg file, on the page's own background, for light and dark."""
    opening, rest = str(drawn).split(">", 1)
    ground = element("rect", class_="ground", x=-12, y=-12, width="110%", height="110%")
    style = f"<style>{_style()} .ground {{ fill: var(--paper); }}</style>"
    return f'{opening} xmlns="http://www.w3.org/2000/svg">{style}{ground}{rest}\n'


def _style() -> str:
    """The rules of the page's style sheet that speak of drawings, and its colours."""
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=False)
    sheet = environment.get_template(_STYLE).render()
    colours = sheet[sheet.index(":root") : sheet.index("* {")]
    rules = [line for line in sheet.splitlines() if _DRAWN.match(line)]
    return " ".join([*colours.split(), *" ".join(rules).split()])
