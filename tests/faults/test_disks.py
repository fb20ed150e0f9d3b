"""Disks that fill up, break or turn read-only at any operation, and slow ones; sources that go away; two at one output."""

import errno
import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.faults.disk import BROKEN, FULL, NO_QUOTA, READ_ONLY, Does, Fails, Slow
from tests.faults.made import checkpoint, state_of
from tests.faults.test_hostile import assert_one_message
from tests.faults.verbs import (
    Study,
    assert_goes_on,
    assert_nothing_half,
    content_of,
    status_of,
    unfinished_in,
)
from tests.faults.work import cut, other, remove

LIGHT = ("extend by copying", "report", "export")
HEAVY = ("evaluate", "tune")
ERRORS = ((FULL, False), (FULL, True), (NO_QUOTA, True), (BROKEN, False), (READ_ONLY, True))


@pytest.mark.faults
@pytest.mark.parametrize("name", [*LIGHT, *HEAVY])
def test_a_disk_that_fails_at_any_operation(
    name: str, studies: dict[str, Study], tmp_path: Path, tried: Counter[str]
) -> None:
    study, whole, place = studies[name], tmp_path / "whole", tmp_path / "failed"
    before, operations = study.source_state(), study.operations(whole)
    faults = [Fails(at, *error) for at in range(1, operations + 1) for error in ERRORS]
    for fault in faults[:: 3 if name in LIGHT else len(ERRORS) + 1]:
        done = study.run(study.begun(place), fault)
        if done.code:
            assert_one_message(done)
        assert_nothing_half(place, whole, study)
        if done.code == 0:
            assert (place / study.out).exists()
        assert_goes_on(place, whole, study)
        tried["faults injected"] += 1
    assert study.source_state() == before


@pytest.mark.faults
@pytest.mark.parametrize("name", ["extend", "report", "tune"])
def test_a_slow_disk_changes_nothing(name: str, studies: dict[str, Study], tmp_path: Path, tried: Counter[str]) -> None:
    study, whole = studies[name], tmp_path / "whole"
    study.operations(whole)
    done = study.run(study.begun(tmp_path / "slow"), Slow(0.02))
    assert done.code == 0, done.said
    assert content_of(tmp_path / "slow") == content_of(whole)
    tried["faults injected"] += 1


@pytest.mark.faults
@pytest.mark.parametrize("what", [remove, cut], ids=["gone", "cut off"])
@pytest.mark.parametrize("copies", [True, False], ids=["copied", "linked"])
def test_a_source_that_vanishes_or_changes_on_the_way(what, copies: bool, tmp_path: Path, tried: Counter[str]) -> None:
    """Whole, or refused with the file's name and nothing left; the same at every moment."""
    source, place, whole = tmp_path / "source", tmp_path / "place", tmp_path / "whole"
    study = Study("extend", ("extend", source, "--to", 128, "--out", "OUT"), (source,), copies=copies)
    checkpoint(source)
    refused = 0
    for at in range(1, study.operations(whole) + 1):
        shutil.rmtree(source)
        checkpoint(source)
        weights = source / "model.safetensors"
        done = study.run(study.begun(place), Does(at, what, (str(weights),)))
        if done.code:
            assert_one_message(done)
            assert str(weights) in done.said and "changed while" in done.said and not list(place.iterdir())
            refused += 1
        elif copies:
            assert content_of(place) == content_of(whole)
        tried["faults injected"] += 1
    assert refused >= 3


@pytest.mark.faults
@pytest.mark.parametrize("name", ["extend", "report", "evaluate", "tune"])
def test_two_processes_at_one_output(name: str, studies: dict[str, Study], tmp_path: Path, tried: Counter[str]) -> None:
    """At each operation of one a second begins and ends: one of the two makes the output, whole; the other says why not.

    A second with --resume that begins when the first has said that it is done prints what the first found.
    """
    study, whole, place = studies[name], tmp_path / "whole", tmp_path / "place"
    operations = study.operations(whole)
    log, code = tmp_path / "second.log", tmp_path / "second.code"
    for at in range(1, operations + 1, 1 if name in LIGHT or name == "extend" else 4):
        out = place / study.out
        arguments = [out if one == "OUT" else one for one in study.arguments] + ["--resume"] * study.resumes
        first = study.run(study.begun(place), Does(at, other, (str(log), str(code), *arguments)))
        second = int(code.read_text())
        found = (tmp_path / "second.code.found").read_text()
        codes = [0, 0] if study.resumes and found == "done" else [0, 2]
        assert sorted((first.code, second)) == codes, f"{at}: {first.said}\n{log.read_text()}"
        if 2 in codes:
            loser = first if first.code else replace(first, code=second, said=log.read_text())
            assert_one_message(loser)
            assert "another process" in loser.said or "was made while this" in loser.said or "already" in loser.said
        assert content_of(place) == content_of(whole)
        assert not study.resumes or status_of(out) == "done"
        tried["faults injected"] += 1


@pytest.mark.faults
def test_what_a_living_process_is_making_is_not_cleared_away(studies: dict[str, Study], tmp_path: Path) -> None:
    """The same without a name that both want: a second run elsewhere in the folder leaves the first's work alone."""
    study = studies["extend"]
    whole, place = tmp_path / "whole", tmp_path / "place"
    operations = study.operations(whole)
    arguments = [place / "out" if one == "OUT" else one for one in study.arguments]
    middle = Does(
        operations // 2, other, (str(tmp_path / "log"), str(tmp_path / "code"), *arguments[:-1], place / "two")
    )
    done = study.run(study.begun(place), middle)
    assert done.code == 0 and (tmp_path / "code").read_text() == "0"
    assert content_of(place / "out") == content_of(place / "two") == content_of(whole / "out")
    assert not unfinished_in(place)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a megabyte and 24 inodes, where one may be mounted."""
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,nr_inodes=24", "none", place], capture_output=True)
    if done.returncode:
        pytest.skip(f"no file system may be mounted here: {done.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", place], check=True)


@pytest.mark.faults
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a file system")
@pytest.mark.parametrize("taken", ["inodes", "bytes", "right to write"])
def test_a_real_disk_without_room(
    taken: str, small_disk: Path, studies: dict[str, Study], tmp_path: Path, tried: Counter[str]
) -> None:
    study = studies["extend"]
    if taken == "inodes":
        for number in range(20):
            (small_disk / str(number)).touch()
    elif taken == "bytes":
        with pytest.raises(OSError) as full, open(small_disk / "large", "wb", buffering=0) as file:
            while True:
                file.write(bytes(65536))
        assert full.value.errno == errno.ENOSPC
    else:
        subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    before = state_of(small_disk)
    done = study.run(small_disk)
    assert_one_message(done)
    assert "OutputError" in done.said and ("No space left" in done.said or "Read-only" in done.said)
    assert state_of(small_disk) == before
    tried["faults injected"] += 1
