"""The scripts of paper/ import each other by name; each test gets them anew, as when they are run."""

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

PAPER = Path(__file__).parents[2] / "paper"
OURS = {path.stem for path in PAPER.glob("*.py")}


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], ModuleType]]:
    """A script of paper/ by its name. All of its siblings are forgotten before and after: paper/recipes has a `make` too."""
    monkeypatch.syspath_prepend(PAPER)
    _forget()
    yield importlib.import_module
    _forget()


def _forget() -> None:
    for name in OURS:
        sys.modules.pop(name, None)
