"""The README's commands and examples, run as written: only the sizes are cut, and the names in angle brackets filled in."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(bash|python)\n(.*?)```", README, flags=re.S)
SHELL = [line for kind, block in BLOCKS if kind == "bash" for line in block.replace("\\\n", " ").splitlines() if line]
PYTHON = [block for kind, block in BLOCKS if kind == "python"]
MAKE = [line.split("#")[0].strip() for line in SHELL if line.startswith("make")]


def cut(command: str) -> str:
    """The same command with two steps of tuning, and a short search; what is said of each target is said of one."""
    command = re.sub(r"--steps [\d,]+", "--steps 2", command)
    command = re.sub(r"--budget \d+", "--budget 10", command)
    command = re.sub(r"(--learning-rate [^ ,]+)(,[^ ,]+)+", r"\1", command)
    return command if "--steps" in command or not command.startswith("ropewalk run") else f"{command} --steps 2"


def items(folder: Path) -> Path:
    """A few items of each short task."""
    folder.mkdir()
    lines = {
        "boolq": {"query": "Passage: It rains.\nQuestion: is it wet?", "choices": ["no", "yes"], "gold": 1},
        "piqa": {"query": "Question: cut bread", "choices": ["with a knife", "with a spoon"], "gold": 0},
        "winogrande": {"context_options": ["The cat saw the dog and the cat", "The cat saw the dog and the dog"],
                       "continuation": "ran away.", "gold": 0},
    }  # fmt: skip
    for task, line in lines.items():
        (folder / f"{task}.jsonl").write_text(3 * (json.dumps(line) + "\n"))
    return folder


def run(command: list[str], folder: Path) -> None:
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"


def test_the_readme_speaks_of_targets_that_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    assert MAKE[:2] == ["make demo", "make test"]
    for line in MAKE:
        assert re.search(rf"^{line.split()[1]}:", makefile, flags=re.M), line


@pytest.mark.model
def test_the_readmes_commands_run(tiny_llama: Path, texts: Path, tmp_path: Path) -> None:
    """In order, in one folder: a later command uses what an earlier one left."""
    named = {
        "path/to/model": str(tiny_llama), "path/to/texts": str(texts), "32k": "512", "2k,8k,32k": "128,512",
        "path/to/items": str(items(tmp_path / "items")),
    }  # fmt: skip
    ours = [line.split("#")[0].strip() for line in SHELL if line.startswith("ropewalk")]
    assert len(ours) >= 6
    for line in ours:
        run([named.get(word, word) for word in shlex.split(cut(line))], tmp_path)


@pytest.mark.model
def test_the_readmes_python_runs(tmp_path: Path) -> None:
    assert PYTHON
    for block in PYTHON:
        run([sys.executable, "-c", re.sub(r"steps=\d+", "steps=2", block)], tmp_path)
