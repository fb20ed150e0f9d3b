"""The shipped checkpoint: what its card claims."""

from pathlib import Path

import pytest

from ropewalk.checkpoint.folder import open_checkpoint, pilot_folder
from ropewalk.evals.evaluate import evaluate
from ropewalk.extension import extend


def test_it_is_small_and_stock() -> None:
    checkpoint = open_checkpoint("pilot")
    assert sum(file.stat().st_size for file in pilot_folder().iterdir()) <= 8 * 2**20
    assert checkpoint.config["model_type"] == "llama" and checkpoint.name == "pilot"
    assert checkpoint.rope.in_words() == "theta 10000, 16 pairs, window 256, unscaled"
    assert 1.9e6 < checkpoint.parameters < 4e6
    assert (pilot_folder() / "README.md").is_file()


@pytest.mark.model
def test_it_finds_the_key_at_every_distance_within_its_window_and_at_none_beyond(tmp_path: Path) -> None:
    inside = evaluate("pilot", tasks=["passkey"], lengths=[256], out=tmp_path / "inside")
    cells = [row for row in inside.results if row.metric == "accuracy"]
    assert sum(row.value or 0 for row in cells) / len(cells) >= 0.95
    assert inside.results[-1].value == 256
    beyond = evaluate("pilot", tasks=["passkey"], lengths=[1024], out=tmp_path / "beyond")
    assert sum(row.value or 0 for row in beyond.results[:-1]) / 32 <= 0.05
    assert beyond.results[-1].value == 0


@pytest.mark.model
def test_its_perplexity_breaks_beyond_its_window(tmp_path: Path) -> None:
    run = evaluate(
        "pilot", tasks=["perplexity"], lengths=[256, 2048], document_count=2, truncate_tokens=4096, out=tmp_path / "x"
    )
    at_window, beyond = (row.value or 0 for row in run.results if row.metric == "perplexity")
    assert beyond > 4 * at_window


@pytest.mark.model
def test_interpolated_untuned_it_reads_badly_and_alike_at_every_length(tmp_path: Path) -> None:
    extend("pilot", to=2048, out=tmp_path / "long")
    run = evaluate(
        tmp_path / "long", tasks=["perplexity"], lengths=[256, 2048], document_count=4, truncate_tokens=4096,
        out=tmp_path / "x",
    )  # fmt: skip
    at_window, at_target = (row.value or 0 for row in run.results if row.metric == "perplexity")
    assert at_window > 40 and abs(at_target / at_window - 1) <= 0.15
