"""`python -m ropewalk`: the same program as `ropewalk`."""

from ropewalk.cli import main

main()
