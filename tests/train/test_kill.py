"""A tuning run that is killed, in its saves above all, and goes on: the same bytes as if it never was."""

import hashlib
import json
import os
import random
import signal
import sys
from collections import Counter
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import torch

from ropewalk.checkpoint.output import folder_status
from ropewalk.errors import CheckpointError, OutputError
from ropewalk.record import read_run
from ropewalk.train import log, loop, state, tune
from ropewalk.train.state import load_state, save_state, saves, write_state
from tests.conftest import TEXT, make_llama

STEPS, KEEP = 12, 2
OPTIONS: dict[str, Any] = {"steps": STEPS, "save_every": 2, "keep_saves": KEEP, "learning_rate": 3e-3}
STARTS = ("step", "save", "save", "checkpoint")  # what each start of a run is killed in, before the last one ends it
RUNS = 5
KILLS = RUNS * len(STARTS)

# One warmed process, from which each start is forked: the libraries are imported once.
FORKS = get_context("forkserver")
FORKS.set_forkserver_preload(["ropewalk.train.tune", "transformers.models.llama.modeling_llama"])


def started(work: Callable[..., None], *arguments: Any) -> int:
    """The exit code of `work` in a process of its own; a signal's number is negative."""
    process = FORKS.Process(target=work, args=arguments)
    process.start()
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def tuning(model: Path, text: Path, out: Path, moment: tuple[str, int, int] | None, diary: Path | None = None) -> None:
    """Begins or goes on. `moment` (what, how many to pass over, operation) is where this process kills itself."""
    torch.set_num_threads(1)
    if diary is not None:
        _with_operations(diary, moment)
    tune.tune(model, data=[text], out=out, resume=True, **OPTIONS)


class _Operations:
    """Counts what a save, or the writing of the checkpoint, does to the disk; kills before, or in the midst of, one."""

    def __init__(self, diary: Path, moment: tuple[str, int, int] | None):
        self.diary, self.moment = diary, moment
        self.inside: str | None = None
        self.begun: Counter[str] = Counter()
        self.operations = 0

    def around(self, what: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **options: Any) -> Any:
            self.inside, self.operations = what, 0
            self.begun[what] += 1
            if self.moment is not None and self.moment[0] == what == "step":
                self.does("step")
            done = work(*arguments, **options)
            self.note(f"{what} done {self.operations}")
            self.inside = None
            return done

        return counted

    def is_due(self) -> bool:
        """Whether the operation that begins now is the one to be killed at."""
        if self.inside is None:
            return False
        self.operations += 1
        return self.moment == (self.inside, self.begun[self.inside] - 1, self.operations)

    def does(self, operation: str) -> None:
        if self.is_due():
            self.die(operation)

    def die(self, operation: str) -> None:
        self.note(f"killed in {self.inside} at {operation}")
        os.kill(os.getpid(), signal.SIGKILL)

    def note(self, line: str) -> None:
        handle = os.open(self.diary, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(handle, f"{line}\n".encode())
        os.close(handle)

    def tensors(self, write: Callable[..., Any]) -> Callable[..., Any]:
        """A file of tensors is written by native code, which no hook sees: the kill leaves half of it."""

        def torn(tensors: Any, path: Any, *arguments: Any, **options: Any) -> None:
            due = self.is_due()
            write(tensors, path, *arguments, **options)
            if due:
                os.truncate(path, os.path.getsize(path) // 2)
                self.die("half a file of tensors")

        return torn


_SEEN = {
    "os.mkdir",
    "os.rename",
    "os.rmdir",
    "os.remove",
    "os.chmod",
    "os.truncate",
    "shutil.rmtree",
    "shutil.copyfile",
}


def _with_operations(diary: Path, moment: tuple[str, int, int] | None) -> None:
    import transformers.modeling_utils

    operations = _Operations(diary, moment)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in _SEEN:
            operations.does(event)
        elif event == "open" and str(arguments[0]) != str(diary) and set(str(arguments[1])) & set("wax+"):
            operations.does("open for writing")

    sync = os.fsync
    os.fsync = lambda handle: (operations.does("fsync"), sync(handle))[1]
    state.save_file = operations.tensors(state.save_file)
    transformers.modeling_utils.safe_save_file = operations.tensors(transformers.modeling_utils.safe_save_file)
    loop.save_state = operations.around("save", loop.save_state)
    loop.Trainer._accumulate = operations.around("step", loop.Trainer._accumulate)
    tune.write_tuned = operations.around("checkpoint", tune.write_tuned)
    sys.addaudithook(hook)


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def results(out: Path) -> Any:
    return json.loads((out / "run.json").read_text())["results"]


def losses(out: Path) -> list[tuple[int, float, float]]:
    entries = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [(entry["step"], entry["loss"], entry["gradient_norm"]) for entry in entries]


def assert_as_if_never_killed(out: Path, whole: Path) -> None:
    """Every file is there, no other is, and all but times and the log's speeds are the same bytes."""
    ours, theirs = digests(out), digests(whole)
    assert ours.keys() == theirs.keys()
    assert {name for name in ours if ours[name] != theirs[name]} <= {"run.json", "log.jsonl"}
    assert losses(out) == losses(whole) and len(losses(out)) == STEPS
    assert results(out) == results(whole)
    assert not [path for path in out.rglob(".*")]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Path) -> Path:
    return make_llama(tmp_path_factory.mktemp("model") / "tiny", tiny_tokenizer)


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text(TEXT)
    return path


def operations_of(diary: Path, what: str) -> list[int]:
    lines = diary.read_text().splitlines()
    return [int(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{what} done")]


@pytest.mark.model
def test_killed_at_twenty_moments_it_ends_as_if_never_killed(
    model: Path, text: Path, tmp_path: Path, record_testsuite_property: Callable[[str, object], None]
) -> None:
    """SIGKILL in steps, at any operation of a save, and of the final checkpoint; most of the kills are in those two."""
    source, whole, rng = digests(model), tmp_path / "whole", random.Random(0)
    assert started(tuning, model, text, whole, None, tmp_path / "diary") == 0
    saved, written = operations_of(tmp_path / "diary", "save"), operations_of(tmp_path / "diary", "checkpoint")
    assert len(saved) == STEPS // 2 and min(saved) >= 10 and min(written) >= 10
    for number in range(RUNS):
        out = tmp_path / f"killed-{number}"
        for what in STARTS:
            moment = {
                "step": (what, rng.randrange(4), 1),
                "save": (what, rng.randrange(2), rng.randint(1, min(saved))),
                "checkpoint": (what, 0, rng.randint(1, min(written))),
            }[what]
            assert started(tuning, model, text, out, moment, tmp_path / "kills") == -signal.SIGKILL, moment
            assert read_run(out).status == "started"
        assert started(tuning, model, text, out, None) == 0
        assert_as_if_never_killed(out, whole)
    assert digests(model) == source
    kills = [line.split(maxsplit=4)[2:] for line in (tmp_path / "kills").read_text().splitlines() if "killed" in line]
    inside = Counter(what for what, *_ in kills)
    record_testsuite_property("kills of a tuning run", dict(inside))
    record_testsuite_property("killed at", dict(Counter(operation for _, _, operation in kills)))
    assert sum(inside.values()) == KILLS and inside["save"] >= KILLS // 2


def stopped(model: Path, text: Path, out: Path, number: int, step: int, keep: int) -> None:
    """Gets a signal in the midst of a step; exits with 3 if the run says that it was stopped, after a save."""
    torch.set_num_threads(1)
    accumulate = loop.Trainer._accumulate

    def signalled(self: loop.Trainer) -> tuple[float, int]:
        if self.step == step:
            os.kill(os.getpid(), number)
        return accumulate(self)

    loop.Trainer._accumulate = signalled
    try:
        tune.tune(model, data=[text], out=out, **(OPTIONS | {"save_every": 100, "keep_saves": keep}))
    except loop.Interrupted as said:
        os._exit(3 if str(said) == f"stopped after step {step + 1} of {STEPS}, saved in {out}" else 4)


@pytest.mark.parametrize(("number", "keep"), [(signal.SIGTERM, KEEP), (signal.SIGINT, KEEP), (signal.SIGTERM, 0)])
def test_a_signal_leaves_a_save_of_the_step_in_hand(model: Path, text: Path, tmp_path: Path, number: int, keep: int):
    """Also where no save is to stay: that is meant for the end, and then none does."""
    out = tmp_path / "out"
    assert started(stopped, model, text, out, number, 4, keep) == 3
    assert read_run(out).status == "interrupted"
    assert [save.step for save in saves(out)] == [5]
    tune.tune(model, data=[text], out=out, resume=True, **(OPTIONS | {"save_every": 100, "keep_saves": keep}))
    assert [step for step, *_ in losses(out)] == list(range(1, STEPS + 1))
    assert [save.step for save in saves(out)] == ([5, STEPS] if keep else [])
    assert (out / "saves").exists() == bool(keep)


@pytest.mark.skipif(sys.platform == "win32", reason="limits on files are POSIX")
def test_a_disk_that_fills_up_in_a_save_keeps_the_save_before(
    model: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a real limit on the size of a file, from the third save on."""
    import resource

    out, made = tmp_path / "out", []
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limited(*arguments: Any) -> Path:
        made.append(arguments[1])
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000 if len(made) > 2 else soft, hard))
        try:
            return save_state(*arguments)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    monkeypatch.setattr(loop, "save_state", limited)
    with pytest.raises(OutputError, match=r"stopped: cannot write .*step-000006(.*\n)*.*--resume"):
        tune.tune(model, data=[text], out=out, **OPTIONS)
    monkeypatch.undo()
    assert [save.step for save in saves(out)] == [2, 4]
    assert sorted(path.name for path in (out / "saves").iterdir()) == ["step-000002", "step-000004"]
    tune.tune(model, data=[text], out=out, resume=True, **OPTIONS)
    tune.tune(model, data=[text], out=tmp_path / "whole", **OPTIONS)
    assert_as_if_never_killed(out, tmp_path / "whole")


def small(width: int = 3) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    """A model that has taken a step."""
    model = torch.nn.Linear(2, width)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    return model, optimizer


def test_the_newest_saves_stay_and_the_rest_goes(tmp_path: Path) -> None:
    model, optimizer = small()
    for step in range(1, 6):
        save_state(tmp_path, step, model, optimizer, {}, 2)
        assert [save.step for save in saves(tmp_path)] == [max(1, step - 1), step][-min(step, 2) :]
    half = tmp_path / "saves" / "step-000003"  # a removal that was broken off before it began with a rename
    half.mkdir()
    (half / "optimizer.safetensors").write_bytes(b"")
    (tmp_path / "saves" / ".step-000002.ropewalk-abcd1234").mkdir()
    save_state(tmp_path, 6, model, optimizer, {}, 2)
    assert sorted(path.name for path in (tmp_path / "saves").iterdir()) == ["step-000005", "step-000006"]
    (tmp_path / "saves" / "step-000006" / "state.json").unlink()
    assert save_state(tmp_path, 6, model, optimizer, {}, 1).name == "step-000006"
    assert [save.step for save in saves(tmp_path)] == [6]


def test_the_optimizer_of_another_model_is_refused(tmp_path: Path) -> None:
    """With the weights of this one, which alone would not tell."""
    (model, optimizer), (other, others) = small(), small(width=4)
    save_state(tmp_path / "ours", 1, model, optimizer, {}, 1)
    save_state(tmp_path / "theirs", 1, other, others, {}, 1)
    ours, theirs = (saves(tmp_path / name)[0] for name in ("ours", "theirs"))
    with pytest.raises(CheckpointError, match="belongs to another model"):
        load_state(theirs, *small())
    os.replace(theirs.folder / "optimizer.safetensors", ours.folder / "optimizer.safetensors")
    write_state(ours.folder, {"step": 1})  # with its size, or it would be refused for that
    (ours,) = saves(tmp_path / "ours")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(CheckpointError, match="belongs to another model"):
        load_state(ours, model, optimizer)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_a_kill_in_the_first_record_and_in_the_cutting_of_the_log_lose_nothing(
    model: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / ".run.json.ropewalk-k1ll3d__").write_text('{"half')
    assert folder_status(out) == "empty"
    interrupted = loop.Trainer._one_step

    def broken(self: loop.Trainer) -> dict[str, float]:
        if self.step == 3:
            raise KeyboardInterrupt
        return interrupted(self)

    monkeypatch.setattr(loop.Trainer, "_one_step", broken)
    with pytest.raises(KeyboardInterrupt):
        tune.tune(model, data=[text], out=out, **OPTIONS)
    monkeypatch.undo()
    before = (out / "log.jsonl").read_text()

    def full(path: Path, content: str) -> None:
        raise OutputError(f"cannot write {path}: No space left on device.")

    monkeypatch.setattr(log, "write_text", full)
    with pytest.raises(OutputError):
        tune.tune(model, data=[text], out=out, resume=True, **OPTIONS)
    monkeypatch.undo()
    assert (out / "log.jsonl").read_text() == before  # cut in a copy
    tune.tune(model, data=[text], out=out, resume=True, **OPTIONS)
    assert [step for step, *_ in losses(out)] == list(range(1, STEPS + 1))
    assert not [path for path in out.rglob(".*")]
