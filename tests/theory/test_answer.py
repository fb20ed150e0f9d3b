"""`ropewalk bounds`: the figures of the theory for LLaMA's head, in numbers and on a terminal."""

import json

import pytest
from typer.testing import CliRunner

import ropewalk
from ropewalk.cli import app

RUNNER = CliRunner()


def test_the_theory_of_llama_s_head() -> None:
    answer = ropewalk.bounds(fits=2)
    rows = {row["name"]: row for row in answer["interpolation"]}
    assert {name: round(128 / row["bound"], 1) for name, row in rows.items()} == {
        "printed": 294.7, "corrected": 256.1, "sharp": 259.2,
    }  # fmt: skip
    assert [round(rows[name]["paper_ratio"], 1) for name in ("printed", "corrected")] == [589.5, 512.2]
    assert [round(rows[name]["trivial_ratio"]) for name in ("printed", "corrected")] == [147, 128]
    assert answer["counterexample"] > rows["printed"]["bound"]
    beyond = answer["extrapolation"]
    assert beyond["first_below_1"] == 4861 and beyond["far"]["least_at"] == 22297
    assert (beyond["plotted"]["distances"], beyond["plotted"]["least_at"]) == (4096, 3643)
    assert len(answer["fits"]) == 6 and answer["fits"][0]["outside"][0] > 5 > answer["fits"][0]["inside"][2]


def test_the_terminal_and_json_say_the_same() -> None:
    printed = RUNNER.invoke(
        app, ["bounds", "--head-dim", "128", "--theta", "10000", "--fits", "1"], env={"COLUMNS": "200"}
    )
    assert printed.exit_code == 0
    for figure in ("294.73", "256.11", "259.17", "589.5", "512.2", "0.4939", "s = 4861", "16.25 d", "(", "ridge 10"):
        assert figure in printed.output, figure
    answer = json.loads(RUNNER.invoke(app, ["bounds", "--fits", "1", "--json"]).output)
    assert answer == json.loads(json.dumps(ropewalk.bounds(fits=1)))


@pytest.mark.parametrize("wrong", [("--head-dim", "7"), ("--theta", "1"), ("--window", "2"), ("--window", "1m")])
def test_a_head_that_cannot_be_is_refused(wrong: tuple[str, str]) -> None:
    result = RUNNER.invoke(app, ["bounds", *wrong])
    assert result.exit_code == 2 and "Traceback" not in result.output


@pytest.mark.parametrize("given", [("--theta", "1e6"), ("--theta", "1.0000001")])
def test_normal_equations_without_a_solution_are_told_in_their_row(given: tuple[str, str]) -> None:
    """A window of 64 tokens under 128 unknowns: the matrix is singular, and rounding does not hide it at every seed."""
    options = ["bounds", "--head-dim", "128", "--window", "64", "--fits", "2", *given]
    printed = RUNNER.invoke(app, options, env={"COLUMNS": "240"})
    assert printed.exit_code == 0, printed.output
    rows = json.loads(RUNNER.invoke(app, [*options, "--json"]).output)["fits"]
    unsolved = {row["solver"]: row["unsolved"] for row in rows}
    assert sum(unsolved.values()) and unsolved["normal equations, ridge 1"] == 0  # with a ridge there is always one
    assert printed.output.count("seeds: singular") == sum(count > 0 for count in unsolved.values())
    for row in rows:
        assert (row["inside"] is None) == (row["unsolved"] == row["seeds"] == 2)
