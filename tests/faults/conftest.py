"""What the verbs are tried on, made once; and the count of what was tried, told at the end."""

from collections import Counter
from pathlib import Path

import pytest

from tests.conftest import make_llama
from tests.faults.forks import ended
from tests.faults.made import checkpoint, in_shards
from tests.faults.verbs import Study
from tests.faults.work import verb

TRIED: Counter[str] = Counter()


@pytest.fixture
def tried() -> Counter[str]:
    """Counts what was tried, by kind; printed when all is done."""
    return TRIED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if TRIED:
        terminalreporter.section("faults")
        terminalreporter.write_line(", ".join(f"{count:,} {kind}" for kind, count in sorted(TRIED.items())))


@pytest.fixture(scope="session")
def studies(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Path) -> dict[str, Study]:
    """One of each verb that writes."""
    root = tmp_path_factory.mktemp("studies")
    by_hand, model, text = checkpoint(root / "by-hand"), make_llama(root / "model", tiny_tokenizer), root / "text.txt"
    in_shards(by_hand)
    text.write_text("The quick brown fox jumps over the lazy dog 0123456789. " * 60)
    measured = root / "measured"
    measure = (
        "--data",
        text,
        "--tasks",
        "perplexity",
        "--lengths",
        "32,64",
        "--stride",
        32,
        "--memory-budget",
        600_000,
    )
    done = ended(verb, "evaluate", model, "--out", measured, *measure, log=root / "log")
    assert done.code == 0, done.said
    extend = ("extend", by_hand, "--to", 128, "--out", "OUT")
    tune = ("tune", model, "--data", text, "--steps", 2, "--batch-tokens", 128, "--save-every", 1, "--out", "OUT")
    return {
        study.name: study
        for study in (
            Study("extend", extend, (by_hand,)),
            Study("extend by copying", extend, (by_hand,), copies=True),
            Study("extend into an empty folder", extend, (by_hand,), prepare=lambda place: (place / "out").mkdir()),
            Study("extend below new folders", extend, (by_hand,), out="a/b/out"),
            Study("report", ("report", measured, "--out", "OUT"), (measured,), out="page.html"),
            Study("export", ("export", model, "--out", "OUT"), (model,)),
            Study("evaluate", ("evaluate", model, "--out", "OUT", *measure), (model,), resumes=True),
            Study("tune", (*tune, "--allow-short-documents"), (model,), resumes=True),
        )
    }
