"""The page: claims, then every part in order, with what was measured by whom and how long it took. Stands alone."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from claims import Verdict, verdicts
from markupsafe import Markup
from part import environment

from ropewalk.record import code_state, package_versions, write_text
from ropewalk.reports.wording import duration

SHOWN = ("ropewalk", "python", "torch", "transformers", "numpy")


def facts_of(parts: Path, name: str) -> dict[str, Any] | None:
    path = parts / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8"))["facts"] if path.exists() else None


def decided(parts: Path) -> list[Verdict]:
    """The claims; none before Tables 1 and 4 are there."""
    table1, table4 = facts_of(parts, "table1"), facts_of(parts, "table4")
    return [] if table1 is None or table4 is None else verdicts(table1, table4)


def write_page(parts: Path, names: Sequence[str], times: Mapping[str, Mapping[str, Any]], out: Path) -> Path:
    """Leaves index.html in `out`, made of the parts of those names."""
    shown = [
        {
            "name": name,
            "title": json.loads((parts / f"{name}.json").read_text(encoding="utf-8"))["title"],
            "body": Markup((parts / f"{name}.html").read_text(encoding="utf-8")),
            "seconds": times.get(name, {}).get("seconds", 0.0),
        }
        for name in names
    ]
    found = decided(parts)
    packages = {name: version for name, version in package_versions().items() if name in SHOWN}
    text = environment().get_template("index.html.j2").render(
        parts=shown, verdicts=found, summary=summary(found), packages=packages, code=code_state(), duration=duration,
        total=sum(part["seconds"] for part in shown),
    )  # fmt: skip
    path = out / "index.html"
    write_text(path, text)
    return path


def summary(found: Sequence[Verdict]) -> str:
    """How many of the verdicts are which, in a sentence."""
    if not found:
        return "Tables 1 and 4 are not made yet; the claims are decided from them."
    counts = {mark: sum(one.mark == mark for one in found) for mark in ("holds", "fails", "open")}
    words = {"holds": "hold at this scale", "fails": "do not", "open": "cannot be told apart"}
    return f"Of {len(found)} verdicts, " + ", ".join(f"{counts[mark]} {said}" for mark, said in words.items()) + "."
