"""Each verb that writes, on something small: what it is given, and what must hold of what it leaves."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ropewalk.atomic import UNFINISHED
from tests.faults.disk import Fault
from tests.faults.forks import Ended, ended
from tests.faults.made import state_of
from tests.faults.work import faulty_verb

TIMED = ("run.json", "log.jsonl")  # hold times, and speeds


@dataclass(frozen=True)
class Study:
    """One verb with its arguments: OUT is the output in a place of its own; sources lie elsewhere, read only."""

    name: str
    arguments: tuple[object, ...]
    sources: tuple[Path, ...]
    out: str = "out"
    resumes: bool = False
    copies: bool = False
    prepare: Callable[[Path], object] = field(default=lambda place: None)

    def run(self, place: Path, fault: Fault = None, *, resume: bool = False) -> Ended:
        arguments = [place / self.out if one == "OUT" else one for one in self.arguments]
        log, count = (place.parent / f"{place.name}.{kind}" for kind in ("log", "count"))
        more = ["--resume"] if resume and self.resumes else []
        return ended(faulty_verb, str(place.resolve()), fault, self.copies, str(count), *arguments, *more, log=log)

    def begun(self, place: Path) -> Path:
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        self.prepare(place)
        return place

    def operations(self, place: Path) -> int:
        """How many operations a run without a fault takes; it stays in `place` to compare others with."""
        done = self.run(self.begun(place))
        assert done.code == 0, done.said
        return int((place.parent / f"{place.name}.count").read_text())

    def source_state(self) -> list[dict[str, str]]:
        return [state_of(source) for source in self.sources]


def content_of(place: Path) -> dict[str, str]:
    return {name: digest for name, digest in state_of(place).items() if Path(name).name not in TIMED}


def unfinished_in(place: Path) -> list[Path]:
    return [path for path in place.rglob(".*") if UNFINISHED.fullmatch(path.name)]


def status_of(out: Path) -> str | None:
    return json.loads((out / "run.json").read_text())["status"] if (out / "run.json").is_file() else None


def assert_nothing_half(place: Path, whole: Path, study: Study) -> None:
    """What has the output's name is the whole output, or says that it is not done."""
    out, model = place / study.out, place / study.out / "config.json"
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if out.is_file() or not study.resumes or status_of(out) == "done":
        ours, theirs = content_of(out) if out.is_dir() else out.read_bytes(), whole / study.out
        expected = content_of(theirs) if theirs.is_dir() else theirs.read_bytes()
        if study.resumes and out.is_dir() and isinstance(ours, dict) and isinstance(expected, dict):
            assert expected.items() <= ours.items()  # saves that are to go may still be there
        else:
            assert ours == expected
    elif model.is_file():  # loadable: then every weight is in its place
        name = "model.safetensors"
        assert state_of(out)[name] == state_of(whole / study.out)[name]


def assert_goes_on(place: Path, whole: Path, study: Study) -> None:
    """The same command again ends with what an undisturbed one leaves, and clears away what lay about."""
    was_whole = (place / study.out).exists() and not study.resumes and any(place.joinpath(study.out).parent.iterdir())
    done = study.run(place, resume=True)
    if was_whole and done.code == 2:
        assert "there already, and finished" in done.said or "exists already" in done.said, done.said
    else:
        assert done.code == 0, done.said
        assert not unfinished_in(place), unfinished_in(place)
    assert (
        content_of(place / study.out if (place / study.out).is_dir() else place).items()
        >= content_of(whole / study.out if (whole / study.out).is_dir() else whole).items()
    )
