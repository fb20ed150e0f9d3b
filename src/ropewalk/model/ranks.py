"""The processes of one run, each a rank: started by torchrun, laid out over data and sequence, and what they tell each other.

    data        ranks along it read different rows of a step
    sequence    ranks along it share each row, every one a stretch of its tokens

A run of one process that torchrun did not start has no process group: all here gives back what it was given.
"""

import contextlib
import datetime
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from ropewalk.errors import FailedElsewhere, RankError

DATA, SEQUENCE, ALL = "data", "sequence", "ranks"
PATIENCE = datetime.timedelta(minutes=10)  # for a rank that neither answers nor ends; one that ends is noticed at once
SPEAKS_AFTER = 1.0  # seconds that other ranks leave to the first to say what went wrong
_T = TypeVar("_T")


@dataclass(frozen=True)
class Layout:
    """How many ranks lie along each axis."""

    data: int = 1
    sequence: int = 1

    @property
    def ranks(self) -> int:
        return self.data * self.sequence

    def in_words(self) -> str:
        return f"{self.ranks} ranks: {self.data} for data x {self.sequence} for each sequence"


def launched() -> bool:
    """Whether torchrun, or what sets the same variables, started this process; also as the only one."""
    return all(name in os.environ for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"))


def rank_and_count() -> tuple[int, int]:
    """This process's number and how many there are, before any of them is asked."""
    return (int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])) if launched() else (0, 1)


def local_count() -> int:
    """How many ranks share this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1)) if launched() else 1


def join(device: torch.device, patience: datetime.timedelta = PATIENCE) -> None:
    """Makes the process group, unless it is there: nccl between GPUs, gloo for all else. Does nothing for a process alone.

    The process takes the GPU of its number on this machine.
    """
    if not launched() or dist.is_initialized():
        return
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
    with lost_rank("the ranks did not find each other"):
        dist.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo", timeout=patience)


def leave() -> None:
    """Ends the process group, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()


class Ranks:
    """The ranks of one run; `Ranks()` is a process alone.

    `mesh` has the axes data and sequence, `line` all ranks in one. Every rank must call the same methods in the same
    order.
    """

    def __init__(self, mesh: DeviceMesh | None = None, line: DeviceMesh | None = None):
        self.mesh, self.line = mesh, line
        self.layout = Layout() if mesh is None else Layout(mesh[DATA].size(), mesh[SEQUENCE].size())
        self.number = 0 if line is None else line.get_local_rank()
        self.count = 1 if line is None else line.size()
        self.data = 0 if mesh is None else mesh.get_local_rank(DATA)
        self.sequence = 0 if mesh is None else mesh.get_local_rank(SEQUENCE)

    @property
    def is_first(self) -> bool:
        """Whether this rank writes, prints and logs."""
        return self.number == 0

    def summed(self, values: Sequence[float]) -> list[float]:
        """The sum over ranks of each value."""
        return self._reduced(values, dist.ReduceOp.SUM)

    def least(self, value: float) -> float:
        return self._reduced([value], dist.ReduceOp.MIN)[0]

    def most(self, value: float) -> float:
        return self._reduced([value], dist.ReduceOp.MAX)[0]

    def wait(self) -> None:
        """For every rank to come here."""
        self.most(0.0)

    def first(self, work: Callable[[], _T]) -> _T | None:
        """What `work` gives, done by the first rank while the others wait, who get None.

        Where it fails, the first raises its error and the others FailedElsewhere.
        """
        if self.line is None:
            return work()
        answer, failed = None, None
        if self.is_first:
            try:
                answer = work()
            except BaseException as error:  # the others are told of any
                failed = error
        fine = self.least(0.0 if failed else 1.0)
        if failed:
            raise failed
        if not fine:
            raise FailedElsewhere("the first rank failed, and says why.")
        return answer

    def _reduced(self, values: Sequence[float], how: Any) -> list[float]:
        if self.line is None:
            return [float(value) for value in values]
        tensor = torch.tensor(list(values), dtype=torch.float64, device=self.line.device_type)
        dist.all_reduce(tensor, how, group=self.line.get_group())
        return tensor.tolist()


ALONE = Ranks()


def laid_out(layout: Layout, device: torch.device) -> Ranks:
    """All ranks of the process group in this layout; ALONE where there is none. Raises RankError when it does not fit."""
    count = rank_and_count()[1]
    if layout.ranks != count:
        raise RankError(
            f"a layout of {layout.data} x {layout.sequence} does not fit {count} "
            f"{'process' if count == 1 else 'processes'}.\n"
            "  Ranks for data times ranks for each sequence is the number that torchrun started.\n"
            "  Give --sequence-parallel a divisor of that number: torchrun --nproc-per-node N -m ropewalk tune ..."
        )
    if not dist.is_initialized():
        return ALONE
    line = init_device_mesh(device.type, (count,), mesh_dim_names=(ALL,))
    return Ranks(init_device_mesh(device.type, (layout.data, layout.sequence), mesh_dim_names=(DATA, SEQUENCE)), line)


@contextlib.contextmanager
def lost_rank(what: str, advice: str = "Start it again with --resume.") -> Iterator[None]:
    """Turns a failure of the ranks' talk, where another process ended or stopped answering, into a RankError."""
    try:
        yield
    except RuntimeError as error:
        if not _is_lost(error):
            raise
        first_line = str(error).strip().splitlines()[0]
        raise RankError(
            f"{what}: another process of this run is gone ({first_line:.200}).\n"
            f"  All ranks work on each step together; rank {rank_and_count()[0]} noticed it.\n"
            f"  {advice}"
        ) from error


def _is_lost(error: RuntimeError) -> bool:
    """gloo's errors are plain RuntimeErrors; nccl's and the store's have a class."""
    words = str(error).lower()
    return isinstance(error, dist.DistError) or "gloo" in words or "connection" in words or "timed out" in words


def may_speak(quiet: bool) -> bool:
    """Whether this process is to say what went wrong: one of the run's, the first if it fails too.

    `quiet` is what another rank has said already. Without a store that all reach, every rank speaks for itself.
    """
    rank, count = rank_and_count()
    if count == 1:
        return True
    if quiet:
        return False
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return True
    if rank:
        time.sleep(SPEAKS_AFTER)
    try:
        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        store = dist.TCPStore(address, port, is_master=False, timeout=datetime.timedelta(seconds=5))
        start = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        return store.add(f"ropewalk/spoke/{start}", 1) == 1
    except (RuntimeError, ValueError):  # torchrun itself is gone
        return rank == 0
