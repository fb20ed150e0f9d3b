"""An evaluation that is killed, again and again, and goes on: the same numbers to the last bit."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ropewalk.checkpoint.folder import open_checkpoint
from ropewalk.errors import CheckpointError, DataError, OutputError
from ropewalk.evals.evaluate import evaluate
from ropewalk.record import Run

KILLS = 10
PASSKEYS = ["passkey", "passkey-near-start", "passkey-anywhere"]
QUESTIONS = {"lengths": [32, 64, 600], "stride": 32, "also": ["disjoint"], "seed": 3}


@pytest.fixture(scope="module")
def task_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tasks")
    lines = [
        {
            "query": f"Question: what is {n} and {n + 1}?\nAnswer:",
            "choices": [f"{2 * n + 1}", f"it is {n}"],
            "gold": n % 2,
        }
        for n in range(150)
    ]
    (folder / "piqa.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def results_of(out: Path) -> str:
    return json.dumps(json.loads((out / "run.json").read_text())["results"])


def lines_in(out: Path) -> int:
    pieces = out / "pieces.jsonl"
    return pieces.read_bytes().count(b"\n") if pieces.exists() else 0


@pytest.mark.model
def test_killed_ten_times_it_ends_as_if_never_stopped(tiny_llama: Path, texts: Path, tmp_path: Path) -> None:
    """SIGKILL whenever some more pieces are there; a limit on pass sizes makes for many of them.

    Short tasks have a test of their own: importing lm_eval ten times would take most of the time.
    """
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    given = QUESTIONS | {
        "tasks": ["perplexity", *PASSKEYS], "data": [str(texts)], "memory_budget": 600_000,
    }  # fmt: skip

    def started(out: Path) -> subprocess.Popen[bytes]:
        call = f"evaluate({str(tiny_llama)!r}, out={str(out)!r}, resume=True, **{given!r})"
        command = [sys.executable, "-c", f"from ropewalk import evaluate; {call}"]
        return subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"})

    assert started(whole).wait() == 0
    rng, total, kills = random.Random(0), lines_in(whole), 0
    while True:
        before = lines_in(broken)
        wanted = before + rng.randint(1, max(1, total // (KILLS + 2)))
        process = started(broken)
        while process.poll() is None and (kills >= KILLS or lines_in(broken) < min(wanted, total)):
            time.sleep(0.002)
        if process.poll() is not None:
            break
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
    assert process.returncode == 0 and kills == KILLS
    assert results_of(broken) == results_of(whole)
    assert (broken / "losses.f32").read_bytes() == (whole / "losses.f32").read_bytes()
    assert (broken / "pieces.jsonl").read_bytes() == (whole / "pieces.jsonl").read_bytes()


def test_the_size_of_a_pass_stays_that_of_the_first_start(
    tiny_llama: Path, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Free memory is another one later; sizes of passes decide the last bits."""
    given = {"lengths": [32, 64], "stride": 32, "tasks": ["perplexity"], "data": [str(texts)]}
    for size, resume in ((256, False), (512, True)):
        monkeypatch.setattr("ropewalk.evals.opening.batch_tokens_for", lambda model, budget, size=size: size)
        assert evaluate(tiny_llama, out=tmp_path, resume=resume, **given).resolved["batch_tokens"] == 256
        record = json.loads((tmp_path / "run.json").read_text()) | {"status": "interrupted"}
        (tmp_path / "run.json").write_text(json.dumps(record))


def test_other_task_files_are_not_gone_on_with(tiny_llama: Path, task_files: Path, tmp_path: Path) -> None:
    given = {"tasks": ["piqa"], "task_files": str(tmp_path / "mine"), "limit": 5}
    (tmp_path / "mine").mkdir()
    text = (task_files / "piqa.jsonl").read_text()
    (tmp_path / "mine" / "piqa.jsonl").write_text(text)
    evaluate(tiny_llama, out=tmp_path / "one", **given)
    record = json.loads((tmp_path / "one" / "run.json").read_text()) | {"status": "interrupted"}
    (tmp_path / "one" / "run.json").write_text(json.dumps(record))
    (tmp_path / "mine" / "piqa.jsonl").write_text(text.replace("what", "who"))
    with pytest.raises(DataError, match="not those that"):
        evaluate(tiny_llama, out=tmp_path / "one", resume=True, **given)


def test_other_weights_or_another_dtype_are_not_gone_on_with(tiny_llama: Path, texts: Path, tmp_path: Path) -> None:
    given = {"lengths": [32], "stride": 32, "tasks": ["perplexity"], "data": [str(texts)]}
    evaluate(tiny_llama, out=tmp_path / "one", **given)
    path = tmp_path / "one" / "run.json"
    begun = json.loads(path.read_text()) | {"status": "interrupted"}
    for place, key, value in (
        ("device", "dtype", "bfloat16"),
        ("resolved", "weights", []),
        ("packages", "torch", "2.0"),
    ):
        path.write_text(json.dumps(begun | {place: begun[place] | {key: value}}))
        with pytest.raises(DataError, match=f"begun with other {key}"):
            evaluate(tiny_llama, out=tmp_path / "one", resume=True, **given)
    path.write_text(json.dumps(begun))
    assert evaluate(tiny_llama, out=tmp_path / "one", resume=True, **given).status == "done"


@pytest.mark.parametrize(
    ("tasks", "files", "says"),
    [
        (["boolq"], None, "items of boolq cannot be had"),
        (["niah_single_1"], None, "needs a window of 1024 tokens, and the model's is 64"),
        (["govreport"], "nosuch", r"no reports for govreport: .*gov_report\.jsonl is not there(.|\n)*no \.jsonl file"),
    ],
)
def test_tasks_that_cannot_be_had_leave_no_folder(
    tasks: list[str], files: str | None, says: str, tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that the next start may be with other arguments."""
    import datasets

    monkeypatch.setattr(datasets, "load_dataset", _no_network)
    with pytest.raises(DataError, match=says):
        evaluate(tiny_llama, out=tmp_path / "out", tasks=tasks, task_files=files and tmp_path / files)
    assert not (tmp_path / "out").exists()


def _no_network(*given: object, **more: object) -> None:
    raise ConnectionError("no network")


def test_a_folder_of_another_command_is_not_gone_on_with(tiny_llama: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    Run(command="run", given={"steps": 1}, resolved={}, ropes={}, seed=0, code={}, packages={}).write(out)
    with pytest.raises(OutputError, match=r"was made by `ropewalk run`, and this is `ropewalk evaluate`"):
        evaluate(tiny_llama, out=out, resume=True)


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("tune", r"has not ended \(status interrupted\)(.|\n)*--resume"),
        ("evaluate", "`ropewalk evaluate` made the folder"),
    ],
)
def test_a_folder_that_is_no_model_yet_says_whose_it_is(command: str, says: str, tmp_path: Path) -> None:
    begun = Run(command=command, given={}, resolved={}, ropes={}, seed=0, code={}, packages={})
    begun.finish(tmp_path, "interrupted")
    with pytest.raises(CheckpointError, match=says):
        open_checkpoint(tmp_path)
