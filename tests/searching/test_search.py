"""The search: its space, that it finds what is there to be found, that it goes on after a stop, and what it leaves."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import ropewalk
from ropewalk.checkpoint.folder import open_checkpoint
from ropewalk.errors import DataError, OutputError, RopeError
from ropewalk.model.load import load_codec, load_model
from ropewalk.record import read_run
from ropewalk.rope.methods import interpolate
from ropewalk.searching.evolution import BEYOND, STEP, Candidate, Evolution, Space
from ropewalk.searching.objective import Objective, _drawn, windows_of
from ropewalk.searching.search import search, space_of
from ropewalk.text.sources import sources

PI = Candidate((4.0,) * 8, 1.0)
NONE = Candidate((1.0,) * 8, 1.0)


def evolved(judge, budget: int, seed: int = 0, known=(PI, NONE)) -> Evolution:
    evolution = Evolution(Space(4.0, known), budget, seed)
    for candidate in evolution.candidates():
        evolution.tell(candidate, judge(candidate))
    return evolution


def away_from(target: np.ndarray, temperature: float):
    def judge(candidate: Candidate) -> float:
        away = np.log(np.array(candidate.factors) / target)
        return float((away**2).sum() + 25 * np.log(candidate.attention_factor / temperature) ** 2)

    return judge


@given(st.integers(0, 1000), st.sampled_from([12, 40]))
def test_every_candidate_is_new_in_order_in_bounds_and_in_steps(seed: int, budget: int) -> None:
    evolution = evolved(lambda candidate: float(np.random.default_rng(len(candidate.name)).random()), budget, seed)
    assert len(evolution.losses) == budget
    for candidate in evolution.losses:
        factors = np.array(candidate.factors)
        assert (np.diff(factors) >= 0).all() and factors.min() >= 1 and factors.max() <= BEYOND * 4 + 1e-9
        assert factors / STEP == pytest.approx(np.round(factors / STEP), abs=1e-6)
        assert 1 <= candidate.attention_factor <= 1.6


def test_evolution_finds_a_ramp_that_none_of_the_known_ones_is() -> None:
    """And not by its budget alone: as many children of random parents do worse."""
    target = np.array([1.0, 1.0, 1.2, 1.6, 2.4, 3.2, 4.0, 4.4])
    judge = away_from(target, 1.15)
    evolution = evolved(judge, 600)
    best = evolution.best()[0]
    assert judge(best) < 0.1 * min(judge(PI), judge(NONE))
    # without selection: the same operators, told nothing
    blind = evolved(lambda candidate: 0.0, 600)
    assert judge(best) < 0.5 * min(map(judge, blind.losses))


def test_the_same_seed_takes_the_same_way_and_another_seed_another() -> None:
    judge = away_from(np.linspace(1, 4, 8), 1.1)
    assert list(evolved(judge, 60).losses) == list(evolved(judge, 60).losses)
    assert list(evolved(judge, 60).losses) != list(evolved(judge, 60, seed=1).losses)


def test_the_known_methods_come_first_and_the_result_is_never_worse() -> None:
    rope = ropewalk.RopeSpec(theta=10000.0, rotary_dim=16, window=ropewalk.Window(64, 64))
    space, names = space_of(rope, 256)
    assert names == ("pi", "ntk", "yarn") and space.known[0] == Candidate((4.0,) * 8, 1.0)
    assert space.known[1].factors[0] == pytest.approx(1) and space.known[1].factors[-1] == pytest.approx(4)
    assert space.known[2].attention_factor == pytest.approx(0.1 * np.log(4) + 1)
    evolution = evolved(lambda candidate: float(candidate.factors[3]), 30, known=space.known)
    first = list(evolution.losses)[:3]
    assert first[0].factors == (4.0,) * 8 and min(evolution.losses.values()) <= min(evolution.losses[c] for c in first)
    with pytest.raises(RopeError, match="already scaled with linear"):
        space_of(interpolate(rope, 128), 256)


def test_where_two_known_methods_are_one_candidate_the_third_is_still_itself() -> None:
    """So near to the window PI and NTK differ by less than a step of the space."""
    rope = ropewalk.RopeSpec(theta=10000.0, rotary_dim=16, window=ropewalk.Window(256, 256))
    space, _ = space_of(rope, 257)
    pi, ntk, yarn = space.starts()
    assert pi == ntk != yarn
    evolution = evolved(lambda candidate: candidate.attention_factor, 20, known=space.known)
    assert list(evolution.losses)[:2] == [pi, yarn]


def test_a_candidate_is_judged_as_the_extended_checkpoint_is(tiny_llama: Path, tmp_path: Path) -> None:
    """The loss with numbers put into the buffer is that of a folder that says them, loaded by stock transformers."""
    from transformers import AutoModelForCausalLM

    windows = [list(range(2, 202)), list(range(40, 240))]
    objective = Objective(load_model(open_checkpoint(tiny_llama)), windows)
    candidate = Candidate((1.0, 1.7, 2.9, 4.0), 1.2)
    options = {"factors": list(candidate.factors), "attention_factor": candidate.attention_factor}
    ropewalk.extend(tiny_llama, to=256, out=tmp_path / "long", method="longrope", options=options)
    stock = AutoModelForCausalLM.from_pretrained(tmp_path / "long", dtype=torch.float32)
    tokens = torch.tensor(windows)
    with torch.inference_mode():
        expected = torch.nn.functional.cross_entropy(
            stock(tokens).logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()
        )
    assert objective(candidate) == pytest.approx(float(expected), abs=1e-5)
    other = objective(Candidate((1.0,) * 4, 1.0))
    assert abs(other - float(expected)) > 1e-3
    assert objective(candidate) == pytest.approx(float(expected), abs=1e-5)  # nothing is left over from the one before


def test_a_search_leaves_factors_that_extend_takes_and_goes_on_after_a_stop(
    tiny_llama: Path, texts: Path, tmp_path: Path
) -> None:
    given = {"to": 256, "data": [texts], "budget": 24, "windows": 2, "seed": 3}
    whole = search(tiny_llama, out=tmp_path / "whole", **given)
    lines = (tmp_path / "whole" / "tried.jsonl").read_text().splitlines(keepends=True)
    assert len(lines) == 24
    # as a killed run leaves it: some whole lines, one cut off, a record that says "started"
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / "tried.jsonl").write_text("".join(lines[:9]) + lines[9][:20])
    record = json.loads((tmp_path / "whole" / "run.json").read_text()) | {"status": "interrupted", "results": []}
    (tmp_path / "cut" / "run.json").write_text(json.dumps(record))
    resumed = search(tiny_llama, out=tmp_path / "cut", resume=True, **given)
    assert (tmp_path / "cut" / "tried.jsonl").read_text() == "".join(lines)
    assert resumed.resolved["factors"] == whole.resolved["factors"]
    assert json.loads((tmp_path / "cut" / "factors.json").read_text()) == whole.resolved["factors"]
    named = {row.name: row.value for row in whole.results}
    assert named["search/searched"] <= min(named[f"search/{name}"] for name in ("pi", "ntk", "yarn"))
    assert whole.resolved["best_after"] == sorted(whole.resolved["best_after"], reverse=True)
    from typer.testing import CliRunner

    from ropewalk.cli import app

    words = whole.resolved["extend_with"].split()
    done = CliRunner().invoke(app, ["extend", str(tiny_llama), "--to", "256", *words, "--out", str(tmp_path / "long")])
    assert done.exit_code == 0, done.output
    scaling = read_run(tmp_path / "long").ropes["after"]["full_attention"]["scaling"]
    assert scaling["long_factor"] == whole.resolved["factors"]
    assert scaling["attention_factor"] == whole.resolved["attention_factor"]


def test_what_cannot_be_searched_is_refused_and_leaves_nothing(tiny_llama: Path, texts: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for wrong, says in (
        ({"budget": 3}, "finds nothing"),
        ({"windows": 4}, r"\d documents of .* have 300 tokens, and 4 are needed"),
        ({"to": 64}, "not above the window of 64"),
    ):
        given = {"to": 300, "data": [texts], "budget": 10, "windows": 1} | wrong
        with pytest.raises((DataError, RopeError), match=says):
            search(tiny_llama, out=out, **given)
    assert not out.exists()


@pytest.mark.model
def test_the_paper_s_comparison_measures_every_winner_on_held_out_texts(
    tiny_llama: Path, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib
    import sys

    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "paper")
    for name in ("drawing", "search"):
        sys.modules.pop(name, None)
    script = importlib.import_module("search")
    arguments = ["--model", tiny_llama, "--to", 256, "--data", texts, "--held-out", texts, "--budget", 12,
                 "--windows", 2, "--out", tmp_path]  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["search.py", *map(str, arguments)])
    script.main()
    rows = (tmp_path / "search-tiny-256" / "table.md").read_text().splitlines()[2:]
    assert [row.split("|")[1].strip() for row in rows] == [
        "pi", "ntk", "yarn", "ntk, searched", "yarn, searched", "longrope",
    ]  # fmt: skip
    searched = [float(row.split("|")[4]) for row in rows]
    assert searched[3] <= searched[1] * 1.2 and searched[5] <= min(searched[:3]) + 1e-3


def windows(data: list[str | Path], folder: Path, *, length: int = 60, count: int = 1):
    return windows_of(load_codec(open_checkpoint(folder)), [str(one) for one in data], length, count, seed=0)


def test_every_part_of_data_is_read_and_a_part_that_is_not_there_is_refused(
    tiny_llama: Path, texts: Path, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"no such text: nosuch\.txt"):
        windows(["pilot", "nosuch.txt"], tiny_llama)
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "train.jsonl").write_text(texts.read_text())
    given = sources([f"hf:{tmp_path / 'set'}", str(texts)])
    drawn = [document.name for document in _drawn(given, False, seed=0)]
    # three of the files, three of the data set, and neither all before the other
    assert {name.rpartition(":")[0] for name in drawn} == {texts.name, given.data_sets[0].given} and len(drawn) == 6
    assert len({name.rpartition(":")[0] for name in drawn[:3]}) == 2
    both = [document.name for document, _ in zip(_drawn(sources([texts]), True, seed=1), range(12), strict=False)]
    assert {name.rpartition(":")[0] for name in both} == {texts.name, "pilot"}


def test_a_text_of_fewer_characters_than_tokens_is_long_enough(tiny_llama: Path, tmp_path: Path) -> None:
    (tmp_path / "zh.txt").write_text("\u957f\u4e0a\u4e0b\u6587" * 10)  # 40 characters, three tokens each
    (window,), judged_on = windows([tmp_path / "zh.txt"], tiny_llama, length=100)
    assert len(window) == 100 and judged_on.documents[0]["tokens"] == 100
    assert [one["path"] for one in judged_on.inputs] == [str(tmp_path / "zh.txt")]


@pytest.mark.parametrize("changed", ["texts", "weights"])
def test_a_search_on_other_texts_or_weights_is_not_gone_on_with(
    changed: str, tiny_llama: Path, texts: Path, tmp_path: Path
) -> None:
    model, text = shutil.copytree(tiny_llama, tmp_path / "m"), tmp_path / "text.jsonl"
    text.write_text(texts.read_text())
    given = {"to": 256, "data": [text], "budget": 10, "windows": 2, "out": tmp_path / "out"}
    search(model, **given)
    record = json.loads((tmp_path / "out" / "run.json").read_text()) | {"status": "interrupted", "results": []}
    (tmp_path / "out" / "run.json").write_text(json.dumps(record))
    if changed == "texts":
        text.write_text(texts.read_text().replace("fox", "dog"))
    else:
        weights = bytearray((model / "model.safetensors").read_bytes())
        weights[-1] ^= 1
        (model / "model.safetensors").write_bytes(weights)
    with pytest.raises(DataError, match=r"texts are not those|begun with other weights"):
        search(model, resume=True, **given)


def test_nothing_is_written_into_the_model_s_folder(tiny_llama: Path, texts: Path) -> None:
    with pytest.raises(OutputError, match=r"lies inside .*, which is read"):
        search(tiny_llama, to=256, data=[texts], out=tiny_llama / "searched")
    assert not (tiny_llama / "searched").exists()
