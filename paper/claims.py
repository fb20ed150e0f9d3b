"""Which of the paper's claims hold at the scale that was run, decided from the facts of Tables 1 and 4 alone.

A verdict is decided by a rule that is printed with it, and by errors where there are any: what two standard errors do not
tell apart is not told apart, and neither is what has no error. That the target is reached is decided by k_max alone, as in
the paper: a threshold over cells, without an error; the keys found stand beside it. That it is missed takes more, since one
cell of ten keys decides k_max: keys are pooled in groups of adjacent cells that are fixed beforehand, and one of the groups
must hold fewer than a fifth beyond chance, with the number of groups allowed for.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from readings import Change, chance_of, grouped, short

HOLDS, FAILS, OPEN = "holds here", "does not hold here", "not told apart"
FIRM = 0.025  # the chance that groups of a fifth of the keys each are taken for missed, over all of them
GROUPS = 8  # of adjacent cells: four of the 32, forty keys
COST = 1.02  # the paper's tuned models stay within 2 % of the original one at its own window

Facts = Mapping[str, Any]


@dataclass(frozen=True)
class Verdict:
    """One claim at one target: what was decided, by which rule, from which figures."""

    claim: str
    rule: str
    where: str
    verdict: str
    figures: str
    paper: str

    @property
    def mark(self) -> str:
        return {HOLDS: "holds", FAILS: "fails"}.get(self.verdict, "open")


def verdicts(table1: Facts, table4: Facts) -> list[Verdict]:
    """Every claim at every target that both tables have, the shortest first."""
    targets = sorted({arm["target"] for arm in table1["arms"]} & {int(target) for target in table4["keys"]["pi"]})
    found = []
    for target in targets:
        found += [reaches(table4, target), direct_stays(table4, target)]
    for target in targets:
        arm = next(a for a in table1["arms"] if a["method"] == "pi" and a["target"] == target)
        found += [falls(arm, table1["window"]), cost(arm, table1)]
    return sorted(found, key=lambda one: CLAIMS.index(one.claim))


CLAIMS = (
    "after the last step, PI reaches the whole target",
    "after the last step, direct tuning with the same steps and texts does not",
    "with PI, perplexity falls as the window grows",
    "the cost at the original window stays small",
)


def reaches(table4: Facts, target: int) -> Verdict:
    keys = _keys(table4, "pi", target)
    return Verdict(
        CLAIMS[0], f"k_max is the target; {MISSED}", _where(table4["window"], target),
        HOLDS if keys["k_max"] == target else FAILS if _is_firm(keys) else OPEN, _said(table4, "pi", target),
        "7B, 8192 to 32768: k_max is the target from step 200 on, but once",
    )  # fmt: skip


def direct_stays(table4: Facts, target: int) -> Verdict:
    keys, window = _keys(table4, "none", target), table4["window"]
    ever = target in _k_max_by_step(table4, "none", target).values()
    return Verdict(
        CLAIMS[1], f"k_max is below the target, and was so at every look; {MISSED}", _where(window, target),
        FAILS if keys["k_max"] == target else HOLDS if _is_firm(keys) and not ever else OPEN, _said(table4, "none", target),
        "7B, 8192: k_max 2304 after 1,000 steps, 2560 after 10,000",
    )  # fmt: skip


def falls(arm: Facts, window: int) -> Verdict:
    """Down over the whole way by two errors, and up at no doubling by two errors."""
    target = arm["target"]
    whole = Change(**arm["within"][str(target)])
    steps = [Change(**one) for one in arm["doublings"]]
    rises = any(one.sign > 0 for one in steps)
    verdict = FAILS if rises or whole.sign > 0 else HOLDS if whole.sign < 0 else OPEN
    values = ", ".join(f"{short(value)} at {length}" for length, value in arm["perplexity"].items())
    return Verdict(
        CLAIMS[2], "lower at the target than at the original window, and higher at no doubling, by two standard errors",
        _where(window, target), verdict, f"{values}; target to window {whole.cell.plain}",
        "7B to 8192: 7.13, 6.96, 6.95 (0.975)",
    )  # fmt: skip


def cost(arm: Facts, table1: Facts) -> Verdict:
    """The tuned model's perplexity at the original window over the base's there."""
    found, window = Change(**arm["cost"]), table1["window"]
    within = found.at_most(COST)
    ours, base = arm["perplexity"][str(window)], table1["base"][str(window)]
    return Verdict(
        CLAIMS[3], f"at most {COST - 1:.0%} above the base, by two standard errors", _where(window, arm["target"]),
        OPEN if within is None else HOLDS if within else FAILS,
        f"{short(ours)} against {short(base)} at {window}: {found.cell.plain}", "7B to 8192: 7.13 against 7.20 (0.990)",
    )  # fmt: skip


MISSED = (
    f"missed, where none of {GROUPS} groups of adjacent cells holds fewer than a fifth of its keys beyond chance "
    f"({FIRM:g} over all of them), is not told apart"
)


def _is_firm(keys: Facts) -> bool:
    """Whether a group of adjacent cells holds fewer than a fifth of its keys, beyond what chance does to one of so many."""
    pools = grouped(keys["hits"], GROUPS)
    return any(chance_of(found, of) < FIRM / len(pools) for found, of in pools)


def _keys(table4: Facts, method: str, target: int) -> Facts:
    return table4["keys"][method][str(target)][str(table4["steps"])]


def _k_max_by_step(table4: Facts, method: str, target: int) -> dict[int, int]:
    return {int(step): keys["k_max"] for step, keys in table4["keys"][method][str(target)].items()}


def _said(table4: Facts, method: str, target: int) -> str:
    keys, steps = _keys(table4, method, target), _k_max_by_step(table4, method, target)
    text = (
        f"k_max {keys['k_max']} of {target} after {table4['steps']} steps, {keys['found']} of {keys['of']} keys found"
    )
    if keys["k_max"] != target and keys["hits"]:
        found, of = min(grouped(keys["hits"], GROUPS), key=lambda pool: chance_of(*pool))
        text += f", {found} of {of} in the weakest group of cells"
    before = ", ".join(f"{k_max} at {step}" for step, k_max in sorted(steps.items()) if step != table4["steps"])
    return f"{text}; k_max before: {before}" if before else text


def _where(window: int, target: int) -> str:
    stretch = target / window
    return f"to {target}, {math.floor(stretch) if stretch == math.floor(stretch) else round(stretch, 2)} x"
