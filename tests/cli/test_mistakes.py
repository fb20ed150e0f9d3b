"""Mistakes that a command line invites: each ends with one message that names the option, and leaves nothing."""

import io
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import ropewalk as functions
from ropewalk.arguments import memory, tokens
from ropewalk.commands import guard
from ropewalk.errors import CheckpointError, DataError, RecordError, RopewalkError
from ropewalk.given import several
from ropewalk.model.load import chosen_device
from ropewalk.names import unknown
from tests.cli.test_cli import ropewalk

HUGE = "9" * 400
MISTAKES = [
    (["run", "--to", "1k", "--steps", "1", "--data", "story.txt", "MODEL"], "MODEL comes before --data"),
    (["evaluate", "--data", "story.txt", "MODEL"], "MODEL comes before --data"),
    (["run", "MODEL", "--to", ""], "--to is empty"),
    (["run", "MODEL", "--method", ""], "--method is empty"),
    (["run", "MODEL", "--to", "1k,1024"], "--to has 1024 twice"),
    (["evaluate", "MODEL", "--data", "hf:~nosuchuser/x"], "no such folder: ~nosuchuser/x"),
    (["evaluate", "~nosuchuser/x"], "no such model: ~nosuchuser/x"),
    (["evaluate", "MODEL", "--device", "meta"], "a device of type 'meta' cannot be used"),
    (["evaluate", "MODEL", "--tasks", "passkey", "--data", "story.txt"], "--data has no effect here"),
    (["evaluate", "MODEL", "--memory-budget", HUGE], "--memory-budget: '9999"),
    (["tune", "MODEL", "--memory-budget", "0"], "--memory-budget: '0' is no amount of memory"),
    (["tune", "MODEL", "--length", "-4"], "--length: '-4' is not a number of tokens"),
    (["extend", "MODEL", "--to", HUGE], "--to: '9999"),
    (["extend", "MODEL", "--to", "1k", "--method", "YaRN"], "Did you mean 'yarn'?"),
]


@pytest.mark.parametrize(("arguments", "says"), MISTAKES, ids=[f"{words[0]}-{says}" for words, says in MISTAKES])
def test_a_mistake_is_named_and_leaves_nothing(
    arguments: list[str], says: str, tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("story.txt").write_text("once upon a time " * 300)
    said = ropewalk(*[str(tiny_llama) if word == "MODEL" else word for word in arguments], "--out", "x", code=2)
    assert says in said
    assert [path.name for path in tmp_path.iterdir()] == ["story.txt"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--to", "8k", "--steps", HUGE], "--steps is 9999"),
        (["--to", "8k", "--batch-tokens", HUGE], "--batch-tokens: '9999"),
        (["--to", "8k", "--gpu-memory", HUGE], "--gpu-memory: '9999"),
        (["--to", "2048m"], "from 1 to 2^31 - 1"),
        (["--to", "8k", "--gpu-type", "H100X"], "Did you mean 'h100'?"),
        (["--to", "8k", "--gpu-type", "A100"], "Did you mean 'a100'?"),
    ],
)
def test_a_plan_of_numbers_that_cannot_be_is_refused(options: list[str], says: str) -> None:
    assert says in ropewalk("plan", "llama-7b", *options, code=2)


def test_an_odd_head_is_corrected_where_it_was_given() -> None:
    assert "--head-dim" in ropewalk("bounds", "--head-dim", 3, code=2)


@pytest.mark.parametrize("verb", ["tune", "evaluate", "search", "run"])
@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_that_no_generator_takes_is_refused(verb: str, seed: int, tiny_llama: Path, tmp_path: Path) -> None:
    out = tmp_path / "x"
    more = {"to": 512} if verb == "search" else {}
    to = ("--to", 512) if more else ()
    assert "Invalid value for '--seed'" in ropewalk(verb, tiny_llama, *to, "--seed", seed, "--out", out, code=2)
    with pytest.raises(DataError, match=f"--seed is {seed}"):
        getattr(functions, verb)(tiny_llama, out=out, seed=seed, **more)
    assert not out.exists()


@pytest.mark.parametrize("budget", [0, -1])
def test_a_budget_that_holds_nothing_is_refused(budget: int, tiny_llama: Path, tmp_path: Path) -> None:
    for verb in (functions.tune, functions.evaluate):
        with pytest.raises(DataError, match=f"--memory-budget is {budget} bytes"):
            verb(tiny_llama, out=tmp_path / "x", memory_budget=budget)
    assert not (tmp_path / "x").exists()


def test_what_a_step_may_take_reaches_the_work(tiny_llama: Path, texts: Path, tmp_path: Path) -> None:
    tune = ("tune", tiny_llama, "--data", texts, "--steps", 1, "--allow-short-documents", "--memory-budget")
    for budget, fits in (("1kB", False), ("4GB", True)):
        said = " ".join(ropewalk(*tune, budget, "--out", tmp_path / budget).split())
        assert ("a step does not fit the memory" not in said) == fits


def test_the_most_that_is_taken_is_taken() -> None:
    assert tokens(str(10**15)) == memory(str(10**15)) == 10**15
    for number in (tokens, memory):
        with pytest.raises(DataError, match="--some"):
            number(str(10**15 + 1), "--some")


def test_one_alone_is_a_list_of_one(tiny_llama: Path, tmp_path: Path) -> None:
    assert several(Path("a")) == [Path("a")] and several("pi") == ["pi"] and several(("pi", "ntk")) == ["pi", "ntk"]
    out = tmp_path / "x"
    for call, says in (
        (lambda: functions.tune(tiny_llama, data="story.txt", out=out), r"no such text: story\.txt"),
        (lambda: functions.tune(tiny_llama, track="tensorbord", out=out), "unknown tracker 'tensorbord'"),
        (lambda: functions.evaluate(tiny_llama, data="story.txt", out=out), r"no such text: story\.txt"),
        (lambda: functions.evaluate(tiny_llama, tasks="passky", out=out), "unknown task 'passky'"),
        (lambda: functions.evaluate(tiny_llama, tasks="passkey", lengths=1, out=out), "window of 1 tokens"),
        (lambda: functions.evaluate(tiny_llama, also="disjont", out=out), "perplexity 'disjont'"),
        (lambda: functions.search(tiny_llama, to=128, data="story.txt", out=out), r"no such text: story\.txt"),
        (lambda: functions.run(tiny_llama, to=128, method="pie", out=out), "unknown method 'pie'"),
        (lambda: functions.run(tiny_llama, to=128, data="story.txt", out=out), r"no such text: story\.txt"),
        (lambda: functions.check(tiny_llama, runtimes="vlm"), "unknown runtime 'vlm'"),
        (lambda: functions.report(str(out), tmp_path / "page.html"), "no record in .*x"),
        (lambda: functions.read_run(str(out)), "no record in .*x"),
    ):
        with pytest.raises(RopewalkError, match=says):
            call()
    assert not out.exists()


def test_a_record_may_be_named_by_a_word() -> None:
    with pytest.raises(RecordError, match="no record in nowhere"):
        functions.read_run("nowhere")


@pytest.mark.parametrize("kind", ["meta", "hpu", "privateuseone"])
def test_models_run_on_devices_that_are_named(kind: str) -> None:
    with pytest.raises(
        CheckpointError, match=rf"type '{kind}' cannot be used.\n  Models are run on cpu, cuda, mps, xpu"
    ):
        chosen_device(kind)
    assert chosen_device("cpu").type == "cpu"


def test_case_does_not_hide_the_closest_name() -> None:
    assert "Did you mean 'pi'?" in unknown("method", "PI", ["pi", "ntk"])
    assert "Did you mean 'LLaMA'?" in unknown("model", "llama", ["GPT", "LLaMA"])


def test_a_name_that_looks_like_markup_is_a_name(tiny_llama: Path, tmp_path: Path) -> None:
    folder = tmp_path / "a[" / "b]"
    shutil.copytree(tiny_llama, folder)
    assert "a[/b]" in "".join(ropewalk("check", folder, "--runtime", "vllm").split())


@pytest.mark.parametrize("verb", ["inspect", "tune"])
@pytest.mark.parametrize("what", [KeyboardInterrupt, MemoryError])
def test_resume_is_spoken_of_where_there_is_one(
    verb: str, what: type[BaseException], capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped() -> None:
        raise what

    stopped.__name__ = verb
    with pytest.raises(guard.typer.Exit) as ended:
        guard.verb(stopped)()
    assert ended.value.exit_code == (130 if what is KeyboardInterrupt else 2)
    said = capsys.readouterr().err
    assert ("--resume" in said) == (verb == "tune") and ("nothing half made was left" in said) == (verb != "tune")


def test_a_terminal_without_the_signs_gets_the_answer(tiny_llama: Path) -> None:
    command = [sys.executable, "-m", "ropewalk", "inspect", str(tiny_llama)]
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = subprocess.run(command, capture_output=True, env=environment)
    assert done.returncode == 0 and b"never complete a turn" in done.stdout and b"?" in done.stdout


def test_a_reader_who_has_gone_is_no_verdict() -> None:
    """Code 1 says that something is not as it was meant to be."""
    for json in ([], ["--json"]):
        reader, writer = os.pipe()
        os.close(reader)
        command = [sys.executable, "-m", "ropewalk", "plan", "llama-7b", "--to", "8k", *json]
        with io.FileIO(writer, "w") as pipe:
            done = subprocess.run(command, stdout=pipe, stderr=subprocess.PIPE)
        assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, b"")
