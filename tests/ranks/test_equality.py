"""Several ranks train what one does: the same loss at every step and the same weights, whatever is shared out and how."""

import json
from pathlib import Path

import pytest

from tests.conftest import make_llama
from tests.ranks.equality import CASES
from tests.ranks.launching import launched

LAYOUTS = ("2 x 1", "1 x 2", "2 x 2")


@pytest.fixture(scope="module")
def apart(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Path) -> dict[str, dict[str, float]]:
    """Of each case and layout, how far four processes came from one. All are launched once."""
    folder = make_llama(
        tmp_path_factory.mktemp("ranks") / "model", tiny_tokenizer, num_attention_heads=4, num_key_value_heads=2
    )
    launched(4, "-m", "tests.ranks.equality", str(folder))
    found: dict[str, dict[str, float]] = {}
    for rank in range(4):
        for key, values in json.loads((folder / f"apart-{rank}.json").read_text()).items():
            found[key] = {name: max(value, found.get(key, values)[name]) for name, value in values.items()}
    return found


@pytest.mark.model
@pytest.mark.parametrize("case", CASES)
def test_ranks_train_what_one_process_trains(apart: dict[str, dict[str, float]], case: str) -> None:
    """In float64, where another order of the same sums is all that may differ; and training moved the weights."""
    layouts = [key for key in apart if key.rpartition(", ")[0] == case]
    assert {key.rpartition(", ")[2] for key in layouts} >= set(LAYOUTS)
    for key in layouts:
        assert apart[key]["loss"] < 1e-10, key
        assert apart[key]["weights"] < 1e-8, key
        assert apart[key]["moved"] > 1e-3, key
