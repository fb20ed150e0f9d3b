"""What ranks gather, copy and keep in a step is what `plan` counts, and what they choose to keep stays in the memory given."""

import json
from pathlib import Path

import pytest

from tests.conftest import make_llama
from tests.ranks.launching import launched
from tests.ranks.live_bytes import CASES

# matrices that outweigh what 32 tokens leave: a wrong dtype, or gradients that are not counted, are a quarter and more
SIDES = {
    "hidden_size": 128, "intermediate_size": 352, "num_hidden_layers": 6, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 32, "vocab_size": 1024,
}  # fmt: skip


@pytest.mark.ranks
def test_two_ranks_hold_in_a_step_what_the_plan_says(tmp_path: Path, tiny_tokenizer: Path) -> None:
    """Within 15 %, as `plan_predicts_memory` asks of one process, and 3 % at most above. Of few layers it says too much:
    as the first to turn back makes its gradients, it gives back copies and what it kept."""
    make_llama(tmp_path / "model", tiny_tokenizer, **SIDES)
    launched(2, "-m", "tests.ranks.live_bytes", str(tmp_path))
    both = [json.loads((tmp_path / f"held-{rank}.json").read_text()) for rank in (0, 1)]
    assert len(both[0]) == len(both[1]) == len(CASES)
    held = [(name, found) for rank in both for name, found in rank.items()]
    for name, found in held:
        print(f"{name}: {found['held']:,} held, {found['planned']:,} planned, {found['held'] / found['planned']:.3f}")
    for name, found in held:
        if name.endswith("None"):
            assert 0.6 * found["planned"] < found["held"] <= found["planned"], name
            assert set(found["keeps"]) == {"attention", "everything"}, name
        else:
            assert 0.85 * found["planned"] < found["held"] < 1.03 * found["planned"], name
