"""The tables of paper/: their arithmetic on records made by hand, and the checkpoints they are measured on."""

import doctest
import json
import math
from pathlib import Path

import numpy as np
import pytest

import ropewalk
from ropewalk.errors import DataError
from ropewalk.record import EvalResult, Run


def record(*rows: EvalResult) -> Run:
    return Run(command="evaluate", given={}, resolved={}, ropes={}, seed=0, results=list(rows))


def cell(distance: int, hits: int, measured_at: int) -> EvalResult:
    return EvalResult(
        name="passkey", protocol="", length=distance, metric="accuracy", value=hits / 10, stderr=0.1, count=10,
        higher_is_better=True, details={"measured_at": measured_at},
    )  # fmt: skip


def reach(value: float) -> EvalResult:
    return EvalResult(
        name="passkey",
        protocol="",
        length=1024,
        metric="k_max",
        value=value,
        stderr=None,
        count=0,
        higher_is_better=True,
    )


@pytest.mark.parametrize("name", ["printed", "readings", "methods", "page", "grid"])
def test_the_examples_of_the_scripts_are_what_they_give(script, name: str) -> None:
    found = doctest.testmod(script(name))
    assert found.attempted and not found.failed


def test_a_change_is_the_mean_over_tokens_and_its_error_over_the_documents_differences(script) -> None:
    """By hand: means 4 -> 3.5 and 1 -> 1.1 of 10 and 30 tokens. A mean over documents would give -0.2 nats."""
    change = script("readings").change([(40, 10), (30, 30)], [(35, 10), (33, 30)])
    assert change.nats == pytest.approx(68 / 40 - 70 / 40) and change.ratio == pytest.approx(math.exp(-0.05))
    # each document's residual of the difference is 0.1125; an unweighted mean of differences would have an error of 0.3
    assert change.error == pytest.approx(0.225)
    alone = script("readings").change([(40, 10)], [(35, 10)])
    assert alone.error is None and alone.cell.error == "" and alone.sign == 0 and alone.at_most(1e9) is None


def test_the_error_of_a_change_is_that_of_its_mean_when_documents_are_drawn_anew(script) -> None:
    """Long documents change otherwise than short ones, so an error of the documents' plain mean would miss by much."""
    random, change = np.random.default_rng(0), script("readings").change
    found = []
    for _ in range(400):
        sizes = random.integers(10, 1000, 40)
        losses = 3 * sizes + random.normal(0, 0.5, 40) * sizes
        found.append(
            change(
                list(zip(losses, sizes, strict=True)), list(zip(losses * 0.9 + 0.0002 * sizes**2, sizes, strict=True))
            )
        )
    assert np.mean([one.error for one in found]) == pytest.approx(np.std([one.nats for one in found]), rel=0.1)


def test_a_perplexity_beyond_numbers_is_told_as_that(script) -> None:
    readings = script("readings")
    assert readings.Change(800.0, 1.0).cell.text == "> 1e300" and readings.short(math.inf) == "> 1e300"


def test_a_bound_is_kept_or_broken_by_two_standard_errors_and_else_not_told(script) -> None:
    change = script("readings").Change
    assert change(math.log(1.0), 0.005).at_most(1.02) is True
    assert change(math.log(1.0), 0.02).at_most(1.02) is None
    assert change(math.log(1.10), 0.02).at_most(1.02) is False
    assert change(math.log(1.10), 0.05).at_most(1.02) is None


def test_cells_that_share_a_place_count_their_keys_once(script) -> None:
    keys = script("readings").keys_of(record(cell(32, 9, 32), cell(64, 9, 32), cell(96, 4, 96), reach(512.0)))
    assert (keys.k_max, keys.found, keys.of, keys.hits) == (512, 13, 20, ((9, 10), (4, 10)))
    low = script("readings").keys_of(record(cell(32, 2, 32), cell(64, 1, 64), cell(96, 0, 96), reach(32.0)))
    assert (low.found, low.of, low.hits) == (3, 30, ((2, 10), (1, 10), (0, 10)))
    assert script("readings").keys_of(record()) is None


def test_losses_by_document_are_those_that_the_perplexity_is_of(
    script, tiny_llama: Path, texts: Path, tmp_path: Path
) -> None:
    run = ropewalk.evaluate(
        tiny_llama, data=[texts], tasks=["perplexity"], lengths=[64, 128, 256], stride=32, out=tmp_path / "measured"
    )
    for row in run.results:
        if row.name == "perplexity":
            sums = script("readings").document_losses(tmp_path / "measured", row.length)
            assert sum(count for _, count in sums) == row.count and len(sums) == 3
            mean = sum(loss for loss, _ in sums) / row.count
            assert math.exp(mean) == pytest.approx(row.value, rel=1e-9)


def test_the_paper_s_step_is_that_at_the_same_share_of_its_thousand(script) -> None:
    at = script("table3").papers_at
    printed = {0: 16.10, 200: 7.12, 1000: 6.95}
    assert [at(printed, step, 240) for step in (0, 48, 60, 240)] == [(0, 16.10), (200, 7.12), None, (1000, 6.95)]


def test_the_paper_s_rows_stand_at_their_stretch(script) -> None:
    """7B to 8192 is a stretch of 4: its 6.95 belongs to the fourth multiple of the window, whatever the window is."""
    tables, printed = script("perplexity_tables"), script("printed")
    row = printed.TABLE_1["7B", 8192, "pi"]
    assert [tables.papers_at(row, s) for s in (1, 2, 4, 8, 3)] == [7.13, 6.96, 6.95, None, None]


@pytest.mark.parametrize(
    ("window", "said"), [(2048, "slide by 256 tokens."), (256, "lie side by side"), (512, "slide by 0.5 of")]
)
def test_the_stride_s_share_of_the_window_is_told_where_it_is_not_the_paper_s(script, window: int, said: str) -> None:
    text = script("readings").of_stride(window, 256)
    assert said in text and ("leaves 1920" in text) == (window != 2048)
    assert window == 2048 or f"has {window - 128} before it" in text


def test_the_step_that_reaches_a_level_is_the_first_that_is_told_below_it(script) -> None:
    first, change = script("methods").first_at_level, script("readings").Change
    assert first({40: change(-0.3, 0.1), 20: change(-0.1, 0.1), 0: change(1.0, 0.1)}) == (40, 20)
    assert first({0: change(1.0, 0.1), 20: change(0.3, 0.1)}) == (None, None)
    assert first({0: change(-1.0, None)}) == (None, 0)


@pytest.fixture
def study(script, tiny_llama: Path, texts: Path, tmp_path: Path):
    held_out = tmp_path / "held-out.jsonl"
    parts = (
        "Over the lazy dog it jumped, the brown fox, quick as ever. ",
        "Nine hundred and 45 of 6,789 foxes agree. ",
    )
    held_out.write_text("".join(json.dumps({"text": part * 60}) + "\n" for part in parts))
    return script("study").Study(
        model=str(tiny_llama), data=(str(held_out),), tune_on=(str(texts),), targets=(128, 256), work=tmp_path / "work",
        steps=4, every=2, rate=1e-3, batch_tokens=256, documents=2, truncate=256,
    )  # fmt: skip


def test_a_step_of_a_run_is_what_a_run_of_so_many_steps_ends_with(script, study, tmp_path: Path) -> None:
    """To the bit: weights of another save, or of the end, would differ."""
    arm = script("study").Arm("pi", 128)
    there = study.at_step(arm, 2)
    ropewalk.tune(
        study.extended(arm), out=tmp_path / "short", data=list(study.tune_on), steps=2, batch_tokens=256,
        learning_rate=1e-3, allow_short_documents=True,
    )  # fmt: skip
    weights = [_tensors(folder) for folder in (there, tmp_path / "short", study.at_step(arm, 4))]
    assert weights[0].keys() == weights[1].keys() == weights[2].keys()
    assert all((weights[0][name] == weights[1][name]).all() for name in weights[0])
    assert any((weights[0][name] != weights[2][name]).any() for name in weights[0])
    subject = ropewalk.read_run(there).resolved["subject"]
    assert (subject["tuning_steps"], subject["tuning_tokens"], subject["tuned"]) == (2, 512, True)
    assert (there / "trained_on.json").read_text() == (study.tuned(arm) / "trained_on.json").read_text()
    with pytest.raises(DataError, match="no save of step 3; it has 2, 4"):
        script("study").write_step(study.tuned(arm), 3, tmp_path / "none")


def _tensors(folder: Path) -> dict:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def test_every_arm_of_table_1_is_measured_as_its_end_is(script, study) -> None:
    tables = script("perplexity_tables")
    rows = tables.measured_rows(study, "table2", data=list(study.data), document_count=2, truncate_tokens=256)
    assert [row.label for row in rows] == ["the base", "direct, to 128", "PI, to 128", "direct, to 256", "PI, to 256"]
    part = tables.perplexity_part(study, "table2", "Table 2", "", script("printed").TABLE_2, rows)
    arms = {(arm["method"], arm["target"]): arm for arm in part.facts["arms"]}
    assert arms["pi", 128]["perplexity"].keys() == {"64", "128"} and len(arms["pi", 256]["doublings"]) == 2
    for arm in arms.values():  # the cost is the ratio of the two perplexities that are printed
        ratio = arm["perplexity"]["64"] / part.facts["base"]["64"]
        assert math.exp(arm["cost"]["nats"]) == pytest.approx(ratio, rel=1e-9)
        whole = sum(one["nats"] for one in arm["doublings"])
        assert whole == pytest.approx(arm["within"][str(arm["target"])]["nats"], abs=1e-9)
    assert len(part.findings) == 5 and json.dumps(part.facts)


def test_names_are_asked_for_where_both_stand_before_and_the_right_one_restores_the_text(script, codec) -> None:
    text = "\n".join(f"first_{n % 5} = second_{n % 7} + third_{n % 3} or nothing of {n}" for n in range(60))
    items = script("items").name_items(codec, [text], 400, 12, __import__("random").Random(0))
    assert len(items) == 12 and {item["gold"] for item in items} == {0, 1}
    for item in items:
        right, wrong = (item["context_options"][i] for i in (item["gold"], 1 - item["gold"]))
        assert right.split("\n")[-1] + " " + item["continuation"] in text
        assert wrong.split("\n")[-1] + " " + item["continuation"] not in text
        assert right.split("\n")[:-1] == wrong.split("\n")[:-1]


def test_lines_are_what_comes_next_and_the_wrong_ones_are_others_of_the_text(script, codec) -> None:
    text = "\n".join(f"line number {n} holds {n * n} and nothing else" for n in range(60))
    items = script("items").line_items(codec, [text], 60, 4, 25, __import__("random").Random(0))
    lines = text.split("\n")
    assert len(items) == 25
    for item in items:
        right = item["choices"][item["gold"]]
        assert lines.index(right) == lines.index(item["before"].split("\n")[-1]) + 1
        assert len(set(item["choices"])) == 4 and set(item["choices"]) <= set(lines)
        assert len(codec.encode(item["before"])) <= 60


def test_a_pair_is_a_function_without_its_docstring_and_the_first_paragraph_of_it(script, codec) -> None:
    source = 'x = 1\n\nclass C:\n    def area(self, w, h):\n        """Gives the area of a box that is w wide.\n\n        More."""\n'
    source += "        return w * h\n\ndef bare():\n    return 1\n"
    (pair,) = script("items").pairs(codec, [source, "not ( python"], 1, 1000)
    assert pair == {
        "report": "def area(self, w, h):\n    return w * h",
        "summary": "Gives the area of a box that is w wide.",
    }
    assert not list(script("items").pairs(codec, [source], 500, 1000))


@pytest.fixture
def codec(tiny_llama: Path):
    from ropewalk.checkpoint.folder import open_checkpoint
    from ropewalk.model.load import load_codec

    return load_codec(open_checkpoint(tiny_llama))
