"""What is read from disk: records, the parts of a pipeline, tuning logs."""

import shutil
from pathlib import Path

import pytest

from ropewalk.errors import RecordError
from ropewalk.reports.sources import number, sources, tuning_log, whole


def test_a_pipeline_brings_its_parts_in_their_order(pilot):
    found = sources([pilot])
    assert len(found.items) == 1 + 13 + 6
    assert [source.name for source in found.items[:4]] == [
        "pilot-run",
        "evaluate-base",
        "evaluate-pi-1024",
        "evaluate-pi-1024-tuned",
    ]
    assert found.notes == ()


def test_a_record_given_twice_counts_once(pilot):
    found = sources([pilot / "evaluate-base", pilot, pilot / "evaluate-base" / "run.json"])
    assert len(found.items) == 20
    assert found.items[0].name == "evaluate-base"


def test_a_missing_part_becomes_a_note_without_the_place_on_disk(pilot):
    shutil.rmtree(pilot / "evaluate-yarn-1024")
    (pilot / "tune-pi-1024" / "run.json").write_text("{")
    found = sources([pilot])
    assert len(found.items) == 18
    assert len(found.notes) == 2
    assert all("pilot-run" in note and str(pilot.parent) not in note for note in found.notes)


def test_a_pipeline_that_names_itself_as_its_part_is_read_once(tmp_path, build):
    folder = build["record"](tmp_path / "loop", "run", None, resolved={"children": [".", "../loop"]})
    assert len(sources([folder]).items) == 1


def test_a_folder_without_a_record_is_refused(tmp_path):
    with pytest.raises(RecordError, match=r"no record in .*run\.json is missing"):
        sources([tmp_path])


def test_a_log_keeps_what_can_be_read(tmp_path: Path):
    log = tmp_path / "log.jsonl"
    log.write_text(
        '{"step": 1, "loss": 3.5}\n\n{"event": "saved"}\n{"step": 2, "loss": null}\n{"step": 3, "loss": 3.25}\n{"st'
    )
    assert tuning_log(log) == (((1, 3.5), (3, 3.25)), 2)
    assert tuning_log(tmp_path / "none.jsonl") == ((), 0)


def test_numbers_from_anywhere():
    values = [1, 2.5, True, "3", None, float("nan"), float("inf"), 1e200, 10**400]
    assert [number(value) for value in values] == [1.0, 2.5, None, None, None, None, None, None, None]
    assert [whole(value) for value in (512, 512.0, 0, -4, "512")] == [512, 512, None, None, None]
