"""The page: claims, then every part in order, with what was measured by whom and how long it took. Stands alone."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from claims import Verdict, verdicts
from markupsafe import Markup
from part import environment

from ropewalk.checkpoint.folder import PILOT, open_checkpoint
from ropewalk.record import write_text
from ropewalk.reports.wording import duration

SMALL = 1e8  # parameters

Times = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Subject:
    """The model that the page is about."""

    name: str
    parameters: int
    window: int

    @property
    def is_small(self) -> bool:
        return self.parameters < SMALL

    @property
    def size(self) -> str:
        """Its parameters in words.

        >>> Subject("pilot", 1_967_808, 256).size, Subject("llama-7b", 6_738_415_616, 2048).size
        ('1.97 million', '6.74 billion')
        """
        return (
            f"{self.parameters / 1e9:.3g} billion" if self.parameters >= 1e9 else f"{self.parameters / 1e6:.3g} million"
        )


def subject_of(model: str) -> Subject:
    base = open_checkpoint(model)
    return Subject("the pilot" if model == PILOT else Path(model).name, base.parameters, base.window.target)


def facts_of(parts: Path, name: str) -> dict[str, Any] | None:
    path = parts / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8"))["facts"] if path.exists() else None


def decided(parts: Path, names: Sequence[str]) -> list[Verdict]:
    """The claims; none before Tables 1 and 4 are among the parts."""
    table1, table4 = (facts_of(parts, name) if name in names else None for name in ("table1", "table4"))
    return [] if table1 is None or table4 is None else verdicts(table1, table4)


def made_with(names: Sequence[str], times: Times) -> list[dict[str, Any]]:
    """The stages by the code and packages that made them, each as it was when the stage ended. The largest group first."""
    groups: dict[str, dict[str, Any]] = {}
    for name in names:
        made = {key: times.get(name, {}).get(key) or {} for key in ("code", "packages")}
        groups.setdefault(json.dumps(made, sort_keys=True), made | {"names": []})["names"].append(name)
    return sorted(groups.values(), key=lambda group: -len(group["names"]))


def write_page(
    parts: Path, names: Sequence[str], times: Times, out: Path, *, subject: Subject, missing: Sequence[str] = (),
    quick: bool = False,
) -> Path:  # fmt: skip
    """Leaves index.html in `out`, made of the parts of those names; `missing` names stages that are not made yet."""
    shown = [
        {
            "name": name,
            "title": json.loads((parts / f"{name}.json").read_text(encoding="utf-8"))["title"],
            "body": Markup((parts / f"{name}.html").read_text(encoding="utf-8")),
            "seconds": times.get(name, {}).get("seconds", 0.0),
        }
        for name in names
    ]
    found = decided(parts, names)
    text = environment().get_template("index.html.j2").render(
        parts=shown, verdicts=found, summary=summary(found), made=made_with(names, times), duration=duration,
        subject=subject, missing=missing, quick=quick, total=sum(part["seconds"] for part in shown),
    )  # fmt: skip
    path = out / "index.html"
    write_text(path, text)
    return path


def summary(found: Sequence[Verdict]) -> str:
    """How many of the verdicts are which, in a sentence."""
    if not found:
        return "Tables 1 and 4 are not made yet; the claims are decided from them."
    counts = {mark: sum(one.mark == mark for one in found) for mark in ("holds", "fails", "open")}
    words = {"holds": "holding at this scale", "fails": "not holding", "open": "not told apart"}
    return f"{len(found)} verdicts: " + ", ".join(f"{counts[mark]} {said}" for mark, said in words.items()) + "."
