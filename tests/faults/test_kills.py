"""SIGKILL at every operation on the disk, one run for each: nothing half is taken for whole, and the next run goes on."""

import random
import signal
from collections import Counter
from pathlib import Path

import pytest

from tests.faults.disk import Bytes, Kill
from tests.faults.verbs import Study, assert_goes_on, assert_nothing_half

VERBS = (
    "extend", "extend by copying", "extend into an empty folder", "extend below new folders", "report", "export",
    "evaluate", "tune",
)  # fmt: skip
SIZES = 24  # limits on the size of a file, for each verb


@pytest.mark.faults
@pytest.mark.parametrize("name", VERBS)
def test_killed_at_each_operation(
    name: str, studies: dict[str, Study], tmp_path: Path, tried: Counter[str], request: pytest.FixtureRequest
) -> None:
    study = studies[name]
    before, whole = study.source_state(), tmp_path / "whole"
    operations = study.operations(whole)
    assert operations >= 5
    for at in range(1, operations + 1):
        killed_and_resumed(study, Kill(at), -signal.SIGKILL, tmp_path / "killed", whole)
        tried["kill points"] += 1
    assert study.source_state() == before


@pytest.mark.faults
@pytest.mark.parametrize("name", [name for name in VERBS if name not in ("extend", "report")])
def test_killed_in_the_midst_of_a_file(
    name: str, studies: dict[str, Study], tmp_path: Path, tried: Counter[str]
) -> None:
    """By the kernel, when a file reaches a size: native code is not spared."""
    study = studies[name]
    before, whole = study.source_state(), tmp_path / "whole"
    study.operations(whole)
    sizes = [path.stat().st_size for path in whole.rglob("*") if path.is_file()]
    rng = random.Random(0)
    for most in (rng.randrange(1, max(sizes)) for _ in range(SIZES)):
        killed_and_resumed(study, Bytes(most), -signal.SIGXFSZ, tmp_path / "killed", whole)
        tried["kill points"] += 1
    assert study.source_state() == before


def killed_and_resumed(study: Study, fault: Kill | Bytes, code: int, place: Path, whole: Path) -> None:
    done = study.run(study.begun(place), fault)
    assert done.code == code, f"{fault}: {done.said}"
    assert_nothing_half(place, whole, study)
    assert_goes_on(place, whole, study)
