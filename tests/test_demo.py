"""What `make demo` calls, as the Makefile has it; apart from the README's other commands, so that they run side by side."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_readme import ROOT, cut, run


@pytest.mark.model
def test_the_demos_path_runs_and_says_what_is_there_the_second_time(tmp_path: Path) -> None:
    """With two steps an arm and one target."""
    recipe = re.search(r"^demo:.*\n\t\$\(BIN\)/(ropewalk run .*)$", (ROOT / "Makefile").read_text(), flags=re.M)
    assert recipe
    command = shlex.split(cut(recipe[1].replace("$(DEMO)", "demo").replace("1024,2048", "512")))
    run(command, tmp_path)
    assert "<svg" in (tmp_path / "demo" / "report.html").read_text()
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    again = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert again.returncode == 0
    assert "finished" in again.stderr and "to start over: rm -r demo" in again.stdout
