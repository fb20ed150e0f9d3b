"""The theory's numbers for people: bounds as printed and as they hold, B(s), and the random fit."""

from collections.abc import Sequence
from typing import Any

from rich.table import Table

_MEANING = {
    "printed": "Theorem 2.1 as printed; scores exceed it",
    "corrected": "its proof with the sum it needs",
    "sharp": "the least that knows |h_j| alone",
}


def bounds_table(answer: dict[str, Any]) -> Table:
    """Each interpolation bound, and how far a bound beyond the window lies above it."""
    d = answer["head_dim"]
    table = Table(title=f"bounds between neighbours, max|h_j| = 1: head dimension {d}, theta {answer['theta']:g}")
    for column in ("bound", "sum of theta_j²", "value", "as d / x", "2 d over it", "d/2 over it", "what it is"):
        table.add_column(column, justify="left" if column in ("bound", "what it is") else "right", overflow="fold")
    for row in answer["interpolation"]:
        total = row["square_sum"]
        table.add_row(
            row["name"], "" if total is None else f"{total:.4f}", f"{row['bound']:.4f}", f"d / {d / row['bound']:.2f}",
            f"{row['paper_ratio']:.1f}", f"{row['trivial_ratio']:.1f}", _MEANING[row["name"]],
        )  # fmt: skip
    return table


def bounds_lines(answer: dict[str, Any]) -> str:
    """What stands below: the counterexample, and B(s) over its range."""
    d, far, plotted = answer["head_dim"], answer["extrapolation"]["far"], answer["extrapolation"]["plotted"]
    printed, worst = answer["interpolation"][0]["bound"], answer["counterexample"]
    first = answer["extrapolation"]["first_below_1"]
    at = ", ".join(f"B({s}) = {value:.4g} d" for s, value in answer["extrapolation"]["at"].items())
    reach = f"s < {far['distances']}: least {far['least']:.4f} at s = {far['least_at']}"
    below = (
        f"B(s) >= d holds for every s < {far['distances']}"
        if first is None
        else f"first below d at s = {first}, {100 * far['below_1']:.1f} % of distances are"
    )
    verdict = "above" if worst > printed else "not above"
    return "\n".join(
        [
            f"h_j = e^(-i theta_j / 2) lies {worst:.4f} from its line between 0 and 1, {verdict} the {printed:.4f} printed",
            "2 d: the paper's bound beyond the window where B(s) >= d. d/2: the sum of |h_j|, which no score exceeds anywhere",
            f"{at}; s < {plotted['distances']}: median {plotted['median']:.4f}, "
            f"least {plotted['least']:.4f} at s = {plotted['least_at']}",
            f"{reach}; {below} (head dimension {d})",
        ]
    )


def fits_table(window: int, fits: Sequence[dict[str, Any]]) -> Table:
    """The random fit of Figure 2: a row a solver, medians with the least and the most of all seeds."""
    seeds = fits[0]["seeds"]
    table = Table(title=f"Figure 2: scores fitted to N(0, 1) at s < {window}; median (least - most) of {seeds} seeds")
    for column in ("solver", f"max|a|, s < {window}", f"{window} <= s < {2 * window}", "from the line", "max|h_j|"):
        table.add_column(column, justify="left" if column == "solver" else "right", overflow="fold")
    for row in fits:
        unsolved = f" (no solution at {row['unsolved']} of {seeds} seeds: singular)" if row["unsolved"] else ""
        table.add_row(
            row["solver"] + unsolved, *(_spread(row[key]) for key in ("inside", "outside", "from_line", "largest"))
        )
    return table


def _spread(values: Sequence[float] | None) -> str:
    if values is None:
        return "none"
    median, least, most = (f"{value:.2g}" for value in values)
    return f"{median} ({least} - {most})"
