"""tune, started by torchrun as on the command line: one folder, one record, what one process leaves; mistakes are told."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from ropewalk.errors import RankError
from ropewalk.evals.evaluate import evaluate
from ropewalk.evals.opening import require_shareable
from ropewalk.extension import extend
from ropewalk.model.ulysses import require_heads
from ropewalk.record import read_run
from ropewalk.train.tune import tune
from tests.conftest import TEXT, make_llama
from tests.ranks.launching import launched

OPTIONS: dict[str, Any] = {"steps": 4, "learning_rate": 3e-3, "dtype": "float64", "save_every": 3}


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Path) -> Path:
    folder = tmp_path_factory.mktemp("verbs")
    tiny = make_llama(folder / "tiny", tiny_tokenizer, num_attention_heads=4, num_key_value_heads=2)
    extend(tiny, to=128, out=folder / "long")
    extend(make_llama(folder / "three", tiny_tokenizer), to=128, out=folder / "three-heads")
    (folder / "text.txt").write_text(TEXT)
    return folder / "long"


def arguments(long: Path, out: Path) -> list[str]:
    given = [f"--{name.replace('_', '-')}={value}" for name, value in OPTIONS.items()]
    return ["-m", "ropewalk", "tune", str(long), "--data", str(long.parent / "text.txt"), "--out", str(out), *given]


@pytest.mark.ranks
def test_two_ranks_leave_the_checkpoint_that_one_process_leaves(long: Path, tmp_path: Path) -> None:
    """Byte for byte: in float64 the sums agree to 1e-14, and the weights are stored in float32. A LoRA run is merged.

    What it prints is said once. Of three rows of LoRA one rank of two has the lesser half, and of one row none.
    """
    lora = [{"adapter": "lora", "lora_rank": rows} for rows in (3, 1)]
    for name, more in (("full", {}), ("three", lora[0]), ("one", lora[1])):
        tune(long, out=tmp_path / f"{name}-1", data=[long.parent / "text.txt"], **OPTIONS, **more)
        given = [f"--{key.replace('_', '-')}={value}" for key, value in more.items()]
        ranked = tmp_path / f"{name}-2"
        done = launched(2, *arguments(long, ranked), "--sequence-parallel=2", *given)
        assert done.stdout.count("tuned for 4 steps") == 1
        assert done.stderr.count("1 for data x 2 for each sequence") == 1
        alone = tmp_path / f"{name}-1"
        assert {p.name for p in ranked.iterdir()} == {p.name for p in alone.iterdir()}
        for file in ("model.safetensors", "config.json", "README.md", "trained_on.json"):
            assert (ranked / file).read_bytes() == (alone / file).read_bytes(), file
        assert read_run(ranked).resolved["layout"] == {"data": 1, "sequence": 2}
        assert len((ranked / "log.jsonl").read_text().splitlines()) == OPTIONS["steps"]


def apart_in_float32(model: str, folder: Path, sequence: int) -> float:
    """By how much of its length the update of 12 steps on two ranks misses that of one process."""
    extend(model, to=1024, out=folder / "long")
    told: dict[str, Any] = {"steps": 12, "dtype": "float32", "batch_tokens": 4096}
    tune(folder / "long", out=folder / "one", device="cpu", **told)
    given = [f"--{name.replace('_', '-')}={value}" for name, value in told.items()]
    launched(
        2, "-m", "ropewalk", "tune", str(folder / "long"), "--out", str(folder / "two"), "--device=cpu",
        f"--sequence-parallel={sequence}", *given,
    )  # fmt: skip
    before, one, two = (load_file(folder / name / "model.safetensors") for name in ("long", "one", "two"))
    update = torch.cat([(one[name] - before[name]).flatten() for name in before])
    missed = torch.cat([(two[name] - one[name]).flatten() for name in before])
    assert update.norm() > 1e-3 * torch.cat([tensor.flatten() for tensor in before.values()]).norm()
    return float(missed.norm() / update.norm())


@pytest.mark.ranks
@pytest.mark.parametrize("sequence", [1, 2])
def test_in_float32_the_update_is_that_of_one_process(tmp_path: Path, sequence: int) -> None:
    """Rounding differs, and Adam makes much of it where a gradient is all but zero: to 1 %."""
    away = apart_in_float32("pilot", tmp_path, sequence)
    print(f"{sequence} ranks for each sequence: {away:.2e} of the update")
    assert away < 1e-2


@pytest.mark.ranks
@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["--sequence-parallel", "3"], "a layout of 0 x 3 does not fit 2 processes"),
        (["--sequence-parallel", "2"], "does not divide the 3 heads of queries"),
        (["--data", "/nowhere"], "DataError"),
        (["--dtype", "float99"], "unknown dtype"),
    ],
)
def test_a_mistake_is_told_once(long: Path, tmp_path: Path, given: list[str], says: str) -> None:
    model = long.parent / "three-heads" if "3 heads" in says else long
    done = launched(
        2, *arguments(model, tmp_path / "out"), *given, code=1
    )  # torchrun's own, whatever a rank ended with
    assert len(re.findall(r"^\w+Error: ", done.stderr, re.MULTILINE)) == 1, done.stderr
    assert says in done.stderr
    assert "src/ropewalk" not in done.stderr  # no traceback of ours
    assert not (tmp_path / "out").exists()


def test_sequence_parallel_without_torchrun_is_refused(long: Path, tmp_path: Path) -> None:
    with pytest.raises(RankError) as error:
        tune(long, out=tmp_path / "out", data=[long.parent / "text.txt"], sequence_parallel=2, **OPTIONS)
    assert "does not fit 1 process" in str(error.value) and "torchrun" in str(error.value)
    assert not (tmp_path / "out").exists()


def test_texts_that_ranks_cannot_share_are_said(tmp_path: Path) -> None:
    """Before anything is read or written; a task that writes tokens is refused for what it is."""
    with pytest.raises(RankError, match="a layout of 0 x 2 does not fit 1 process"):
        evaluate("pilot", out=tmp_path / "out", sequence_parallel=2)
    assert not (tmp_path / "out").exists()
    require_shareable(["perplexity", "passkey-anywhere"], 2)
    require_shareable(["govreport"], 1)
    with pytest.raises(
        RankError, match=r"--sequence-parallel 2 cannot be had for boolq, govreport\.\n.*\n.*another --out"
    ):
        require_shareable(["passkey", "boolq", "govreport"], 2)


def test_heads_that_ranks_cannot_share_are_said() -> None:
    require_heads(32, 8)
    with pytest.raises(RankError, match=r"does not divide the 6 heads .*\n.*\n.*1, 2, 3, 6"):
        require_heads(6, 4)
