"""The scripts as commands: mistakes end in one message, and `make.py` goes on where it stopped."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ropewalk.errors import DataError
from tests.conftest import make_llama

PAPER = Path(__file__).parents[2] / "paper"
NOWHERE, BELOW_A_FILE = ["--model", "nowhere/at/all"], ["--out", f"{__file__}/below"]


def test_a_stage_that_was_given_something_else_is_done_anew_and_times_add_up(script, tmp_path: Path) -> None:
    times = script("times")

    def opened():
        return times.Times.of(tmp_path / "stages.json", tmp_path / "work")

    known = opened()
    known.begin("table1", ["--quick"])
    known.end("table1", 5.0, done=False)
    assert not known.is_done("table1", ["--quick"])
    known.begin("table1", ["--quick"])
    known.end("table1", 7.0, done=True)
    again = opened()
    assert again.is_done("table1", ["--quick"]) and not again.is_done("table1", ["--steps", "3"])
    assert again.known["table1"]["seconds"] == 12.0 and again.known["table1"]["packages"]["torch"]
    again.known["table1"]["form"] = 1  # facts of another form: rendered anew, and the work's time is kept
    assert not again.is_done("table1", ["--quick"])
    again.begin("table1", ["--quick"])
    again.end("table1", 1.0, done=True)
    assert again.known["table1"]["seconds"] == 13.0
    again.begin("table1", ["--steps", "3"])
    assert again.known["table1"]["seconds"] == 0.0


def test_a_start_that_was_killed_counts_until_the_last_file_it_wrote(script, tmp_path: Path) -> None:
    path, work, times = tmp_path / "stages.json", tmp_path / "work", script("times").Times
    work.mkdir()
    times.of(path, work).begin("table1", [])
    began = json.loads(path.read_text())["table1"]["began"]
    (work / "written").write_text("before the kill")
    os.utime(work / "written", (began + 30, began + 30))
    after = times.of(path, work)
    after.begin("table1", [])
    after.end("table1", 5.0, done=True)
    assert after.known["table1"]["seconds"] == 35.0 and "began" not in after.known["table1"]


@pytest.mark.parametrize("file", ["model.json", "parts/stages.json"])
@pytest.mark.parametrize("content", ["{", "[1]", '{"table1": null}'])
def test_a_damaged_file_of_the_work_is_one_message(
    script, file: str, content: str, tiny_llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "work" / "parts").mkdir(parents=True)
    (tmp_path / "work" / file).write_text(content)
    given = [
        "--model",
        str(tiny_llama),
        "--work",
        str(tmp_path / "work"),
        "--out",
        str(tmp_path / "out"),
        "--only",
        "figure5",
    ]
    with pytest.raises(SystemExit) as ended:
        script("options").run(lambda: script("make").main(given))
    said = capsys.readouterr().err
    assert ended.value.code == 2 and said.startswith("RecordError") and "--work" in said and said.count("\n") == 3


@pytest.mark.parametrize("option", ["--out", "--work"])
@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_folder_that_cannot_be_made_is_told_before_anything_is_done(
    script, option: str, place: str, tiny_llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "file").write_text("here already")
    places = {"--out": tmp_path / "out", "--work": tmp_path / "work"} | {option: tmp_path / place}
    given = ["--model", str(tiny_llama), *(str(part) for pair in places.items() for part in pair)]
    for name in ("make", "table1"):
        with pytest.raises(SystemExit) as ended:
            script("options").run(lambda name=name: script(name).main(given))
        said = capsys.readouterr().err
        assert ended.value.code == 2 and f"cannot be the folder of {option}" in said and said.count("\n") == 3
    assert not (tmp_path / "work" / "parts").exists() and (tmp_path / "file").read_text() == "here already"


def test_a_quick_run_does_not_write_over_the_results(script, tmp_path: Path) -> None:
    options = script("options")
    for given, expected in (
        ([], options.RESULTS),
        (["--quick"], tmp_path / "quick-results"),
        (["--quick", "--out", "x"], Path("x")),
    ):
        parsed = options.table_options("").parse_args([*given, "--work", str(tmp_path)])
        assert options.output_place(parsed) == expected


@pytest.mark.parametrize("option", ["--steps", "--every", "--documents"])
def test_a_count_below_one_is_refused(script, option: str, tiny_llama: Path, tmp_path: Path) -> None:
    options = script("options")
    given = options.table_options("").parse_args(["--model", str(tiny_llama), option, "0", "--work", str(tmp_path)])
    with pytest.raises(DataError, match=f"{option} is 0"):
        options.study_of(given)


@pytest.mark.parametrize(
    ("name", "arguments", "says"),
    [
        ("make", ["--only", "tabel4"], "Did you mean"),
        ("table4", ["--windows", "8x"], "not a number of tokens"),
        ("table6", ["--data", "tasks"], "--data is given without --pairs"),
        ("table6", ["--pairs", "pairs.jsonl"], "--pairs is given without --data"),
        *(
            (name, NOWHERE, "no such model")
            for name in ("make", *(f"table{n}" for n in range(1, 7)), "methods", "direct")
        ),
        *((name, NOWHERE, "no such model") for name in ("figure_heads", "looseness", "search")),
        ("figure_heads", ["--stretch", "0"], "--stretch is 0"),
        ("looseness", ["--pairs", "-1"], "--pairs is -1"),
        ("search", ["--budget", "0"], "--budget is 0"),
        ("search", ["--to", "2x"], "not a number of tokens"),
        ("figure2", ["--seeds", "0"], "--seeds is 0"),
        *((name, BELOW_A_FILE, "cannot be the folder of --out") for name in ("figure2", "figure5", "window_plots")),
    ],
)
def test_a_mistake_ends_a_script_with_one_message_and_code_2(
    script, name: str, arguments: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    has_work = name == "make" or name.startswith("table") or name in ("methods", "direct")
    work = ["--work", str(tmp_path)] if has_work else []
    with pytest.raises(SystemExit) as ended:
        script("options").run(lambda: script(name).main(["--out", str(tmp_path / "out"), *work, *arguments]))
    said = capsys.readouterr().err
    assert ended.value.code == 2 and says in said and said.count("\n") >= 2 and "Traceback" not in said


def test_other_arguments_in_one_work_are_told_by_the_option_of_the_scripts(
    script, tiny_llama: Path, texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """The verb says --out, which here lies below --work."""
    import ropewalk

    def measured(stride: int) -> None:
        ropewalk.evaluate(
            tiny_llama,
            data=[texts],
            tasks=["perplexity"],
            lengths=[64],
            stride=stride,
            out=tmp_path / "eval",
            resume=True,
        )

    measured(64)
    with pytest.raises(SystemExit) as ended:
        script("options").run(lambda: measured(32))
    said = capsys.readouterr().err
    assert ended.value.code == 2 and "or another --work." in said and "--out" not in said


def test_every_script_ends_by_the_same_rule() -> None:
    scripts = [path for path in PAPER.glob("*.py") if "__main__" in path.read_text()]
    assert len(scripts) == 15
    assert [path.name for path in scripts if not path.read_text().endswith("    run(main)\n")] == []


def test_work_begun_with_other_weights_is_refused(
    script, tiny_llama: Path, tiny_tokenizer: Path, tmp_path: Path
) -> None:
    """Finished evaluations are taken as they are, so a model that was replaced would go unseen."""
    require = script("options").require_same_model
    require(str(tiny_llama), tmp_path / "work")
    require(str(tiny_llama), tmp_path / "work")
    other = make_llama(tmp_path / "other", tiny_tokenizer, seed=1)
    with pytest.raises(DataError, match="begun with other weights"):
        require(str(other), tmp_path / "work")


@pytest.mark.paper
def test_make_paper_goes_on_after_a_kill_and_ends_as_if_it_had_not_been_killed(tmp_path: Path) -> None:
    """Killed hard twice, in the midst of its work; what was done is not done again, and the page is whole."""
    from ropewalk.checkpoint.folder import pilot_folder

    tokenizer = tmp_path / "tokenizer"
    tokenizer.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(pilot_folder() / name, tokenizer / name)
    model = make_llama(tmp_path / "tiny", tokenizer, window=128, vocab_size=1024)
    command = [sys.executable, PAPER / "make.py", "--quick", "--model", model, "--windows", "256,512", "--work",
               tmp_path / "work", "--out", tmp_path / "out"]  # fmt: skip
    record = tmp_path / "work" / "quick-parts" / "stages.json"
    for stages in (2, 5):
        begun = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while len(before := finished(record)) < stages:
            assert begun.poll() is None
            time.sleep(0.2)
        time.sleep(2)  # into the next one
        assert begun.poll() is None
        os.kill(begun.pid, signal.SIGKILL)
        begun.wait()
        assert not (tmp_path / "out" / "index.html").exists()
    done = subprocess.run(command, capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert len(before) >= 5
    for name in before:
        assert f"{name}: done before" in done.stdout
    page = (tmp_path / "out" / "index.html").read_text()
    names = [
        "figure2",
        "figure5",
        "heads",
        "looseness",
        *(f"table{n}" for n in range(1, 7)),
        "methods",
        "direct",
        "search",
    ]
    assert re.findall(r'<section id="(\w+)">', page) == ["claims", "parts", *names, "made"]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"index.html", *(f"{name}.json" for name in names)}
    again = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert again.stdout.count("done before") == len(names)
    whole = [*command[:-3], tmp_path / "whole", "--out", tmp_path / "whole-out"]
    never_killed = subprocess.run(whole, capture_output=True, text=True, timeout=1500)
    assert never_killed.returncode == 0, never_killed.stderr[-3000:]
    for name in names:
        assert (tmp_path / "out" / f"{name}.json").read_bytes() == (
            tmp_path / "whole-out" / f"{name}.json"
        ).read_bytes(), name


def finished(record: Path) -> list[str]:
    """The stages that are done by now."""
    known = json.loads(record.read_text()) if record.exists() else {}
    return [name for name, one in known.items() if one["done"]]
