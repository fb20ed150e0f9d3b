"""A save of several ranks is whole or refused, and all ranks go on from the same one."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from ropewalk.errors import CheckpointError
from ropewalk.model.ranks import ALONE
from ropewalk.train.state import saves
from tests.conftest import make_llama
from tests.ranks.equality import state_of, trainer_of
from tests.ranks.launching import launched

pytestmark = pytest.mark.ranks


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Path) -> Path:
    folder = tmp_path_factory.mktemp("saves")
    make_llama(folder / "model", tiny_tokenizer, num_attention_heads=4, num_key_value_heads=2)
    launched(2, "-m", "tests.ranks.saving", str(folder))
    return folder


@pytest.fixture(scope="module")
def told(folder: Path) -> list[dict[str, Any]]:
    return [json.loads((folder / f"saving-{rank}.json").read_text()) for rank in range(2)]


def test_a_save_names_its_files(folder: Path, told: list[dict[str, Any]]) -> None:
    assert all(rank["shared"] == "" and rank["left"] == ["step-000001"] for rank in told)
    (saved,) = saves(folder / "both")
    there = {path.name: path.stat().st_size for path in saved.folder.iterdir() if path.name != "state.json"}
    assert saved.state["files"] == there and len(there) == 2 and saved.is_sharded


def test_ranks_that_do_not_share_a_disk_leave_no_save(told: list[dict[str, Any]]) -> None:
    """Neither what the first wrote, which would be half a save, nor what the other left on its own disk."""
    for rank in told:
        assert rank["each its own"].startswith("OutputError: cannot save into ")
        assert "1 of 2 ranks do not see what the first made there" in rank["each its own"]
        assert "a disk that all machines share" in rank["each its own"]
        assert rank["left in its own"] == []


def test_ranks_that_find_other_saves_or_texts_do_not_begin(folder: Path, told: list[dict[str, Any]]) -> None:
    for rank in told:
        assert rank["one has a save"].startswith("RankError: the ranks of this run do not find the same saves in ")
        assert "one finds none, another step 1" in rank["one has a save"]
        assert rank["other texts"].startswith("RankError: the ranks of this run have not read the same texts")


@pytest.mark.parametrize(
    ("cut", "says"), [(None, "is missing"), (1, r"holds [\d,]+ bytes of [\d,]+"), (-1, r"holds [\d,]+ bytes of [\d,]+")]
)
def test_a_save_without_all_of_its_files_is_refused(folder: Path, cut: int | None, says: str, tmp_path: Path) -> None:
    """Before anything of it is read: what is there of half a save would be taken, and the rest stay as it was."""
    for number in range(2):
        run = tmp_path / str(number)
        shutil.copytree(folder / "both", run)
        path = sorted((run / "saves" / "step-000001").glob("*.safetensors"))[number]
        if cut is None:
            path.unlink()
        else:
            path.write_bytes(path.read_bytes()[:-cut] if cut > 0 else path.read_bytes() + b"0")
        trainer = trainer_of(folder, run, ALONE)
        before = {name: tensor.clone() for name, tensor in state_of(trainer).items()}
        with pytest.raises(CheckpointError, match=rf"step-000001 cannot be read: {path.name} {says}\."):
            trainer.resume()
        assert all(torch.equal(before[name], tensor) for name, tensor in state_of(trainer).items())


def test_a_save_of_one_process_names_its_files_too(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "run" / "saves").mkdir(parents=True)
    trainer = trainer_of(folder, tmp_path / "run", ALONE)
    trainer._one_step()
    (trainer.save(1) / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model\.safetensors is missing"):
        trainer_of(folder, tmp_path / "run", ALONE).resume()
