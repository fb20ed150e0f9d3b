"""The cells of `direct.py`'s grid: kept in its json, read from that of another model, compared, and drawn."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drawing import saved
from options import state_of
from part import Cell
from readings import Keys

from ropewalk.errors import RecordError
from ropewalk.reports.figures import Figure
from ropewalk.reports.lines import Axis, Line, Mark, Rule
from ropewalk.reports.standalone import HALF_ALONE
from ropewalk.reports.svg import log_ticks

DIRECT, STRETCH, WEAKER, PI = "direct", "stretch", "weaker", "pi"  # what a line varies
VARIED = {STRETCH: "the longer stretch", WEAKER: "the weaker base", PI: "interpolation"}
SHARED = (DIRECT, PI)  # lines that are taken over from another model


@dataclass(frozen=True)
class Row:
    """One cell of the grid. `factor` is what its line varies; `cell` is the perplexity at the target as it is printed."""

    line: str
    factor: str
    target: int
    rate: float
    perplexity: float
    cell: Cell
    keys: Keys

    @property
    def share(self) -> float:
        return self.keys.found / self.keys.of

    def plain(self) -> dict[str, Any]:
        told = {"line": self.line, "factor": self.factor, "target": self.target, "rate": self.rate}
        return told | {
            "perplexity": self.perplexity,
            "text": self.cell.text,
            "error": self.cell.error,
            **vars(self.keys),
        }


@dataclass(frozen=True)
class Other:
    """Another model's grid: its size, its lines that are shared with this one, and keys it found in its own window, of how many."""

    parameters: int
    window: int
    steps: int
    rows: Sequence[Row]
    own: tuple[int, int] | None


def size(parameters: int) -> str:
    """In words.

    >>> size(1_967_808), size(541_000)
    ('1.97 M', '0.541 M')
    """
    return f"{parameters / 1e6:.3g} M"


def other_of(path: Path) -> Other:
    """What `direct.py` left of another model. Raises RecordError for a file that is none of its."""
    try:
        facts = state_of(path, option="--beside")["facts"]
        rows = [_row(told, facts["parameters"]) for told in facts["rows"] if told["factor"] in SHARED]
        own = facts["own"] and (facts["own"][0], facts["own"][1])
        return Other(facts["parameters"], facts["window"], facts["steps"], rows, own)
    except (KeyError, TypeError, IndexError):
        raise RecordError(
            f"{path} has no grid of another model.\n"
            "  Expected the direct.json that paper/direct.py leaves in its --out, with parameters, window, steps and rows.\n"
            "  Give that file with --beside, made by this version; what it was made from is not done again."
        ) from None


def _row(told: dict[str, Any], parameters: int) -> Row:
    keys = Keys(told["k_max"], told["found"], told["of"], tuple(map(tuple, told["hits"])))
    line = f"{told['line']}, {size(parameters)}"
    return Row(
        line, told["factor"], told["target"], told["rate"], told["perplexity"], Cell(told["text"], told["error"]), keys
    )


def findings(rows: Sequence[Row]) -> list[str]:
    """What each factor moves, the others held, in keys found."""
    lines: dict[str, list[Row]] = {}
    for row in rows:
        lines.setdefault(row.line, []).append(row)
    said = [
        f"{line}: keys found {', '.join(f'{row.share:.0%} at {row.rate:g}' for row in mine)}."
        for line, mine in lines.items()
    ]
    common = set.intersection(*({row.rate for row in mine} for mine in lines.values())) if lines else set()
    for factor, what in VARIED.items():
        pairs = paired(
            [row for row in rows if row.rate in common], [row for row in rows if row.factor == factor], DIRECT
        )
        moved = "; ".join(f"{a.share:.0%} to {b.share:.0%} at {a.rate:g}" for a, b in pairs)
        if moved:
            said.append(f"At the same rate, {what} moves the share of keys from {moved}.")
    return said


def paired(rows: Sequence[Row], others: Sequence[Row], factor: str) -> list[tuple[Row, Row]]:
    """Rows of a factor, each with that of the others at the same rate."""
    return [(a, b) for a in rows for b in others if a.factor == factor and a.rate == b.rate]


def against(rows: Sequence[Row], parameters: int, other: Other) -> str:
    """What another size of model moves, the rate held."""
    word = "smaller" if other.parameters < parameters else "larger" if other.parameters > parameters else "other"
    said = []
    for factor in SHARED:
        pairs = paired(rows, [row for row in other.rows if row.factor == factor], factor)
        moved = ", ".join(f"{b.share:.0%} at {a.rate:g} against {a.share:.0%}" for a, b in pairs)
        if moved:
            said.append(f"{'direct tuning' if factor == DIRECT else 'interpolation'} {moved}")
    of = f"the {word} model, of {size(other.parameters)} parameters against {size(parameters)},"
    if not said:
        return f"No rate is shared with {of.rstrip(',')}, so nothing is said of size."
    return f"At the same rate, {of} finds of the keys, after {other.steps} steps: {'; '.join(said)}."


def pictures(rows: Sequence[Row], out: Path, rule: float | None) -> list[Figure]:
    """Keys found and perplexity by learning rate; `rule` marks a rate."""
    return [
        _picture(rows, "share of the keys found", lambda row: row.share, False, out / "direct-keys.svg", rule),
        _picture(
            rows, "perplexity at the target", lambda row: row.perplexity, True, out / "direct-perplexity.svg", rule
        ),
    ]


def _picture(
    rows: Sequence[Row], what: str, value: Callable[[Row], float], log: bool, path: Path, rule: float | None
) -> Figure:
    lines, values = [], [value(row) for row in rows]
    for tint, line in enumerate(dict.fromkeys(row.line for row in rows), 1):
        mine = [row for row in rows if row.line == line]
        lines.append(Line(line, tint % 8, tuple(Mark(row.rate, value(row)) for row in mine)))
    rates = sorted({row.rate for row in rows})
    x = Axis("learning rate", rates[0] / 1.8, rates[-1] * 1.1, True, tuple(rates))
    lo, hi = min(values) / 1.1, max(values) * 1.1
    y = (
        Axis(what, lo, hi, True, tuple(log_ticks(lo, hi)))
        if log
        else Axis(what, 0, 1.04, False, (0, 0.25, 0.5, 0.75, 1))
    )
    rules = (Rule(rule, "the paper's share"),) if rule and rates[0] / 1.8 <= rule <= rates[-1] * 1.1 else ()
    return saved(path, lines, x, y, f"{what[0].upper()}{what[1:]} by learning rate.", rules, HALF_ALONE)
