"""The processes of one run, each a rank: started by torchrun, laid out over data and sequence, and what they tell each other.

    data        ranks along it read different rows of a step
    sequence    ranks along it share each row, every one a stretch of its tokens

A run of one process that torchrun did not start has no process group: all here gives back what it was given.
"""

import contextlib
import datetime
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch.distributed import PrefixStore, rendezvous  # pyright: ignore[reportPrivateImportUsage]
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from ropewalk.errors import FailedElsewhere, RankError
from ropewalk.launch import launched, rank_and_count
from ropewalk.record import Run, disk_errors

DATA, SEQUENCE, ALL = "data", "sequence", "ranks"
PATIENCE = datetime.timedelta(minutes=10)  # for a rank that neither answers nor ends; one that ends is noticed at once
WORK = datetime.timedelta(days=2)  # for ranks that work apart, where one's part may take longer
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


def joined(device: torch.device, *, talk: str | None = None, patience: datetime.timedelta = PATIENCE) -> "Ranks":
    """All ranks that torchrun started, in a process group: nccl between GPUs, gloo for all else. A process alone is ALONE.

    The process takes the GPU of its number on this machine; the only process of a run, the one that `device` names.
    `talk` is the kind of device that what ranks tell each other lies on (None: that of `device`). Raises RankError where
    there is no GPU for it, or ranks are missing.
    """
    if not launched():
        return ALONE
    if device.type == "cuda":
        if device.index is not None and rank_and_count()[1] > 1:
            raise RankError(
                f"--device {device} names one GPU for {rank_and_count()[1]} processes.\n"
                "  Each process that torchrun starts takes the GPU of its own number.\n"
                "  Give --device cuda, or leave it out."
            )
        _take_gpu(int(os.environ.get("LOCAL_RANK", 0)) if device.index is None else device.index)
    if not dist.is_initialized():
        with lost_rank(lambda: "the ranks did not find each other"):
            store, rank, count = next(rendezvous("env://", timeout=patience))
            # torchrun keeps one store through its restarts, with the addresses of those that died
            fresh = PrefixStore(f"ropewalk/start-{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)
            backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
            dist.init_process_group(backend, store=fresh, rank=rank, world_size=count, timeout=patience)
    return Ranks(init_device_mesh(talk or device.type, (dist.get_world_size(),), mesh_dim_names=(ALL,)))


def _take_gpu(number: int) -> None:
    if number >= torch.cuda.device_count():
        raise RankError(
            f"GPU {number} is not there for a rank of this machine: there are {torch.cuda.device_count()}.\n"
            "  Each process that torchrun starts takes one.\n"
            "  Give --nproc-per-node the number of GPUs, or --device cpu."
        )
    torch.cuda.set_device(number)


def leave() -> None:
    """Ends the process group, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()


class Ranks:
    """The ranks of one run; `Ranks()` is a process alone.

    `line` has all ranks in one axis, `mesh` has the axes data and sequence; None: all lie along data. Every rank must
    call the same methods in the same order.
    """

    def __init__(self, line: DeviceMesh | None = None, mesh: DeviceMesh | None = None):
        self.line, self.mesh = line, mesh
        self.number = 0 if line is None else line.get_local_rank()
        self.count = 1 if line is None else line.size()
        self.layout = Layout(self.count) if mesh is None else Layout(mesh[DATA].size(), mesh[SEQUENCE].size())
        self.data = self.number if mesh is None else mesh.get_local_rank(DATA)
        self.sequence = 0 if mesh is None else mesh.get_local_rank(SEQUENCE)

    def over(self, layout: Layout) -> "Ranks":
        """The same ranks, laid out so. Raises RankError when the layout does not fit them."""
        if layout.ranks != self.count or min(layout.data, layout.sequence) < 1:
            raise RankError(
                f"a layout of {layout.data} x {layout.sequence} does not fit "
                f"{self.count} {'process' if self.count == 1 else 'processes'}.\n"
                "  Ranks for data times ranks for each sequence is the number that torchrun started.\n"
                "  Give --sequence-parallel a divisor of it: torchrun --nproc-per-node N -m ropewalk VERB ..."
            )
        if self.line is None:
            return self
        sides, names = (layout.data, layout.sequence), (DATA, SEQUENCE)
        return Ranks(self.line, init_device_mesh(self.line.device_type, sides, mesh_dim_names=names))

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


@contextlib.contextmanager
def recorded(run: Run, out: Path, ranks: Ranks) -> Iterator[None]:
    """`run.recorded(out)`, by the first rank: it locks the folder and writes the record. The others begin when it has.

    What a disk does to any rank becomes the same OutputError. Every rank must call this.
    """
    with contextlib.ExitStack() as stack:
        ranks.first(lambda: stack.enter_context(run.recorded(out)))
        if not ranks.is_first:
            stack.enter_context(disk_errors(out))
        yield


@contextlib.contextmanager
def lost_rank(where: Callable[[], str]) -> Iterator[None]:
    """Turns a failure of the ranks' talk, where another process ended or stopped answering, into a RankError.

    `where` tells what was under way.
    """
    try:
        yield
    except RuntimeError as error:
        if not _is_lost(error):
            raise
        raise RankError(
            f"another process of this run is gone: {where()}.\n"
            f"  All ranks work together, and rank {rank_and_count()[0]} of {rank_and_count()[1]} waited in vain "
            f"({first_line(error):.200}).\n"
            "  See what ended it, then start again with --resume."
        ) from error


def _is_lost(error: RuntimeError) -> bool:
    """gloo's errors are plain RuntimeErrors; nccl's and the store's have a class."""
    words = str(error).lower()
    return isinstance(error, dist.DistError) or "gloo" in words or "connection" in words or "timed out" in words


def first_line(error: BaseException) -> str:
    """Of what an exception says; its kind where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
