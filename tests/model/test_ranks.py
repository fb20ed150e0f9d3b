"""What a process knows of the others before it has met them."""

import pytest
import torch
import torch.distributed as dist

from ropewalk.errors import RankError
from ropewalk.model.ranks import joined, lost_rank

TORCHRUN = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}
MISSING = 64  # more GPUs than a machine has


@pytest.mark.parametrize(("device", "rank", "gpu"), [(f"cuda:{MISSING}", 0, MISSING), ("cuda", MISSING, MISSING)])
def test_the_only_process_takes_the_gpu_that_it_is_given(
    monkeypatch: pytest.MonkeyPatch, device: str, rank: int, gpu: int
) -> None:
    """One that is not there, so that the refusal names which it would have taken: that of --device before its own."""
    for name, value in (TORCHRUN | {"LOCAL_RANK": str(rank)}).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(RankError, match=f"^GPU {gpu} is not there .*: there are {torch.cuda.device_count()}\\."):
        joined(torch.device(device))
    assert not dist.is_initialized()


def test_a_device_for_one_is_not_for_several(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (TORCHRUN | {"WORLD_SIZE": "2"}).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(RankError, match="--device cuda:1 names one GPU for 2 processes"):
        joined(torch.device("cuda:1"))


def test_a_loss_without_words_is_told_by_its_kind() -> None:
    with pytest.raises(RankError, match=r"is gone: in step 3\.\n.*waited in vain \(DistError\)\."):
        with lost_rank(lambda: "in step 3"):
            raise dist.DistError
