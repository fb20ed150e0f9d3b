"""What is done in forks: the verbs of the command line, in bounds or with a fault on the way."""

import errno
import json
import os
import sys

from tests.faults.disk import Disk, Fault
from tests.faults.forks import bounded, run


def verb(*arguments: object) -> None:
    """`ropewalk ARGUMENTS`."""
    from ropewalk.cli import main

    sys.argv = ["ropewalk", *map(str, arguments)]
    main()


def bounded_verb(memory: int, seconds: int, *arguments: object) -> None:
    bounded(memory, seconds)
    verb(*arguments)


def faulty_verb(place: str, fault: Fault, copies: bool, count: str, *arguments: object) -> None:
    """A verb with a fault below `place`; `copies`: links cannot be made. Leaves the count of operations in a file."""
    if copies:
        os.link = _no_link
    disk = Disk(place, fault)
    disk.install()
    try:
        verb(*arguments)
    finally:
        disk.busy = True
        with disk.open(count, "w") as file:
            file.write(str(disk.count))


def _no_link(*arguments: object, **options: object) -> None:
    raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))


def remove(path: str) -> None:
    os.unlink(path)


def cut(path: str) -> None:
    os.truncate(path, os.path.getsize(path) - 1)


def _status(record: str) -> str:
    if not os.path.exists(record):
        return ""
    with open(record) as file:
        return json.load(file)["status"]


def other(log: str, code: str, *arguments: object) -> None:
    """The same verb by another process, from beginning to end, while this one waits; its exit code goes to a file.

    What the output was before it began goes to a file beside that.
    """
    record = os.path.join(str(arguments[arguments.index("--out") + 1]), "run.json")
    with open(f"{code}.found", "w") as file:
        file.write(_status(record))
    child = os.fork()
    if child == 0:
        run(verb, arguments, log)
    _, status = os.waitpid(child, 0)
    with open(code, "w") as file:
        file.write(str(os.waitstatus_to_exitcode(status)))
