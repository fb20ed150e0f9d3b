"""What is done in forks: the verbs of the command line, in bounds or with a fault on the way."""

import sys

from tests.faults.forks import bounded


def verb(*arguments: object) -> None:
    """`ropewalk ARGUMENTS`."""
    from ropewalk.cli import main

    sys.argv = ["ropewalk", *map(str, arguments)]
    main()


def bounded_verb(memory: int, seconds: int, *arguments: object) -> None:
    bounded(memory, seconds)
    verb(*arguments)
