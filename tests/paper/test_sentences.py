"""What the tables say of their figures: right in both directions, and nothing of what its error leaves open."""

import math
from itertools import pairwise
from pathlib import Path

import pytest

from ropewalk.errors import RecordError
from ropewalk.record import EvalResult, write_json
from tests.paper.test_tables import record


def sentences(script, printed: dict, changes: dict[tuple[str, int], float], error: float) -> list[str]:
    """Of Tables 1 and 2: the base and both methods to four times a window of 256, with changes of so many nats."""
    tables, study = script("perplexity_tables"), script("study")
    given = study.Study(
        model="pilot", data=(), tune_on=(), targets=(1024,), work=Path(), steps=240, every=60, rate=None, batch_tokens=None,
        documents=6, truncate=2048,
    )  # fmt: skip
    rows = [tables.Row(arm, record(), Path()) for arm in (None, study.Arm("none", 1024), study.Arm("pi", 1024))]
    told = {label: {length: script("readings").Change(nats, error) for (of, length), nats in changes.items() if of == label}
            for label in (row.label for row in rows)}  # fmt: skip
    return tables.findings(given, printed, "7B", rows, told, told)


CHANGES = {("the base", 256): 0.0, ("the base", 1024): 1.4, ("direct, to 1024", 256): 0.16, ("direct, to 1024", 1024): -0.23,
           ("PI, to 1024", 256): 0.21, ("PI, to 1024", 1024): -0.3}  # fmt: skip


def test_each_of_the_paper_s_two_figures_has_a_verdict_of_its_own(script) -> None:
    """Table 1: direct tuning rises with the window there (1.067) and falls here; it costs in both, PI (0.990) only here."""
    direct, pi, base = sentences(script, script("printed").TABLE_1, CHANGES, 0.01)
    assert "has 1.067 (direction: does not agree) and 1.001 (direction: agrees)" in direct and "10,000 steps" in direct
    assert "has 0.975 (direction: agrees) and 0.990 (direction: does not agree)" in pi and "10,000" not in pi
    assert "(the paper's 7B: > 139 times)" in base


@pytest.mark.parametrize("error", [0.2, None])
def test_what_is_within_its_error_agrees_with_nothing(script, error: float | None) -> None:
    direct, pi, _ = sentences(script, script("printed").TABLE_1, CHANGES, error)
    for text in (direct, pi):
        assert text.count("not told apart") == 2 and "agree" not in text


def test_the_base_is_compared_with_the_row_of_its_own_table(script) -> None:
    """Table 2 has dashes beyond the base's window, and Table 1's bound is not its."""
    base = sentences(script, script("printed").TABLE_2, CHANGES, 0.01)[-1]
    assert base.startswith("The base at 1024 tokens: 4.055 ± 0.041 times") and "paper" not in base


@pytest.mark.parametrize(
    ("nats", "says"),
    [
        ([0.5, 0.01, -0.2], "falls at every look. Against the base's own 12.00 it is first not told apart at step 60 and is first below at "
         "step 120."),
        ([0.5, 0.1, 0.09], "falls at 1 of 2 looks, is not told apart from the one before at 1. Against the base's own 12.00 it stays above."),
        ([-0.5, -0.1, -0.09], "rises at 1, is not told apart from the one before at 1. Against"),
    ],
)  # fmt: skip
def test_table_3_compares_each_look_with_the_last_and_with_the_base_by_errors(
    script, nats: list[float], says: str
) -> None:
    table3, change = script("table3"), script("readings").Change
    between = [change(b - a, 0.02) for a, b in pairwise(nats)]
    course = table3.Course(
        {0: 20.0, 60: 13.0, 120: 12.0}, between, {60 * n: change(x, 0.02) for n, x in enumerate(nats)}
    )
    assert says in table3.finding(1024, course, 12.0)
    assert "> 1e300" in table3.finding(1024, course, None)


def test_the_lowest_method_is_named_with_those_not_told_apart_from_it(script) -> None:
    """Two documents that change by as much lose nothing by their own difference; two that change apart tell nothing."""
    plots, methods, change = script("method_plots"), script("methods"), script("readings").Change

    def row(method: str, *losses: float):
        ppl = EvalResult(name="perplexity", protocol="", length=1024, metric="perplexity", value=math.exp(sum(losses) / len(losses)),
                         stderr=None, count=1, higher_is_better=False)  # fmt: skip
        run = record(ppl)
        sums = [(loss * 100, 100) for loss in losses]
        return plots.Row(
            method, 1024, run, run, 60, None, change([(1, 1)], [(1, 1)]), {}, None, {"untuned": sums, "tuned": sums}
        )

    said = methods.lowest([row("pi", 2.0, 4.0, 3.0), row("ntk", 2.1, 4.11, 3.1), row("yarn", 2.9, 3.3, 3.0)], "tuned")
    assert said.startswith("tuned PI, 20.09 (not told apart: YaRN")


def grid_rows(script, cells: list[tuple[str, str, float, int]]) -> list:
    grid, part, readings = script("grid"), script("part"), script("readings")
    return [
        grid.Row(
            line, factor, 1024, rate, 12.0, part.Cell("12.00", "± 0.5"), readings.Keys(0, found, 100, ((found, 100),))
        )
        for line, factor, rate, found in cells
    ]


CELLS = [
    ("direct, to 1024", "direct", 1e-4, 0),
    ("direct, to 1024", "direct", 1e-3, 80),
    ("direct, to 2048", "stretch", 1e-3, 10),
    ("weaker base, to 1024", "weaker", 1e-3, 70),
    ("PI, to 1024", "pi", 1e-4, 5),
    ("PI, to 1024", "pi", 1e-3, 90),
]


def test_the_grid_says_what_each_factor_moves_with_the_others_held(script) -> None:
    said = script("grid").findings(grid_rows(script, CELLS))
    assert said[0] == "direct, to 1024: keys found 0% at 0.0001, 80% at 0.001."
    assert [text.split("moves ")[1] for text in said[4:]] == [
        "the share of keys from 80% to 10% at 0.001.",
        "the share of keys from 80% to 70% at 0.001.",
        "the share of keys from 80% to 90% at 0.001.",
    ]


def test_without_a_second_target_the_grid_says_nothing_of_a_longer_stretch(script) -> None:
    said = script("grid").findings(grid_rows(script, [cell for cell in CELLS if cell[1] != "stretch"]))
    assert len(said) == 5 and not any("stretch" in text for text in said)
    assert said[3].startswith("At the same rate, the weaker base moves the share of keys from 80% to 70% at 0.001.")


def test_another_model_s_grid_stands_beside_by_its_size(script, tmp_path: Path) -> None:
    grid = script("grid")
    facts = {
        "rows": [row.plain() for row in grid_rows(script, CELLS)],
        "steps": 120,
        "parameters": 541_000,
        "window": 256,
        "own": [180, 200],
    }
    path = tmp_path / "direct.json"
    write_json(path, {"name": "direct", "tables": [], "facts": facts})
    other = grid.other_of(path)
    assert other.own == (180, 200)
    assert [row.line for row in other.rows] == [f"{m}, to 1024, 0.541 M" for m in ("direct", "direct", "PI", "PI")]
    mine = grid_rows(script, [("direct, to 1024", "direct", 1e-3, 30), ("PI, to 1024", "pi", 1e-3, 60)])
    assert grid.against(mine, 1_967_808, other) == (
        "At the same rate, the smaller model, of 0.541 M parameters against 1.97 M, finds of the keys, after 120 steps: direct "
        "tuning 80% at 0.001 against 30%; interpolation 90% at 0.001 against 60%."
    )
    assert "the larger model" in grid.against(mine, 100_000, other)
    assert len(grid.pictures([*mine, *other.rows], tmp_path, 1e-4)) == 2
    path.write_text('{"facts": {"rows": [], "steps": 120}}')
    with pytest.raises(RecordError, match="no grid of another model"):
        grid.other_of(path)
    with pytest.raises(RecordError, match="no grid of another model"):
        grid.other_of(tmp_path / "none.json")
