"""A command line in each of several processes: what is wrong with it is said by the first."""

import os
import subprocess
import sys

import pytest

TORCHRUN = {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}


@pytest.mark.parametrize("arguments", [["tune", "pilot", "--out", "x", "--nope"], ["tune", "pilot"], ["tuna"]])
def test_a_wrong_command_line_is_told_by_the_first_rank(arguments: list[str]) -> None:
    """Both exit with 2, the other after the first has had time to speak."""
    ranks = [
        subprocess.Popen(
            [sys.executable, "-m", "ropewalk", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=os.environ | TORCHRUN | {"RANK": str(rank)},
        )
        for rank in range(2)
    ]  # fmt: skip
    said = [rank.communicate(timeout=120) for rank in ranks]
    assert [rank.returncode for rank in ranks] == [2, 2]
    assert "Usage" in said[0][1] and said[1] == ("", "")
