"""What torchrun tells a process of the run it belongs to, and which of the processes speaks. torch is loaded for the latter.

A run of one process that nobody launched has none of these variables.
"""

import datetime
import os
import time

from ropewalk.errors import FailedElsewhere

PATIENCE = 1.0  # seconds that other ranks leave to the first to say what went wrong
REACH = datetime.timedelta(seconds=5)  # to torchrun's store


def launched() -> bool:
    """Whether torchrun, or what sets the same variables, started this process; also as the only one."""
    return all(name in os.environ for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"))


def rank_and_count() -> tuple[int, int]:
    """This process's number and how many there are, before any of them is asked."""
    return (int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])) if launched() else (0, 1)


def local_count() -> int:
    """How many ranks share this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1)) if launched() else 1


def speaks(error: BaseException) -> bool:
    """Whether this process is to say what ended the run: one of all, and the first where it fails too.

    Where the processes have no store of torchrun's to agree in, each speaks for itself.
    """
    rank, count = rank_and_count()
    if count == 1:
        return True
    if isinstance(error, FailedElsewhere):
        return False
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return True
    from torch.distributed import TCPStore  # pyright: ignore[reportPrivateImportUsage]

    if rank:
        time.sleep(PATIENCE)
    try:
        store = TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False, timeout=REACH)
        start = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        return store.add(f"ropewalk/spoke/{start}", 1) == 1
    except RuntimeError:  # torchrun itself is gone
        return rank == 0
