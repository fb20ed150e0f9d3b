"""Live figures: memory and the share of the measured peak are what they say; the end is foretold from the first steps."""

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.utils.benchmark

from ropewalk.model.budget import peak_bytes
from ropewalk.model.peak import matmul_peak
from ropewalk.planning.shapes import shape_of
from ropewalk.planning.work import model_flops
from ropewalk.progress import Progress
from ropewalk.train import loop, meter
from ropewalk.train.meter import Meter, known_shape, shown
from ropewalk.train.recipe import resolved_recipe
from ropewalk.train.tune import tune
from tests.conftest import config_of

CPU = torch.device("cpu")


class Heard(Progress):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def entries(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def test_the_share_of_the_peak_is_work_over_time_and_rate(
    tiny_llama: Path, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At a peak of 1 GFLOP/s: 6 x (weights of products) x tokens and 6 x layers x width x length squared, over both."""
    monkeypatch.setattr(meter, "matmul_peak", lambda *arguments: 1e9)
    tune(tiny_llama, out=tmp_path / "out", data=[texts], steps=3, batch_tokens=128)
    matrices = 2 * (24 * (24 + 2 * 8) + 24 * 24 + 3 * 24 * 40) + 24 * 300
    work = 6 * matrices * 128 + 2 * 6 * 2 * 24 * 64**2
    for entry in entries(tmp_path / "out"):
        assert entry["of_peak"] == pytest.approx(work / 1e9 / entry["seconds"], abs=1e-4)
        assert 0.05 < entry["memory_gib"] == pytest.approx(peak_bytes(CPU) / 2**30, rel=0.2)


def test_what_stays_frozen_has_no_gradient_to_count(tiny_llama: Path) -> None:
    shape = shape_of(config_of(tiny_llama))
    spared = model_flops(shape, 64) - model_flops(shape, 64, "lora")
    assert spared == 2 * (shape.body + shape.head) * 64


def test_a_family_whose_work_is_not_known_has_no_share(tiny_llama: Path) -> None:
    config = config_of(tiny_llama)
    assert known_shape(config) is not None
    assert known_shape(config | {"model_type": "mixtral"}) is None
    recipe = resolved_recipe("paper", parameters=1, length=64, steps=9)
    assert Meter(None, recipe, "full", CPU, torch.float32, 0).figures(1.0).keys() == {"memory_gib"}


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Two threads wait for each other, which on a busy machine is most of what a clock would see."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_the_peak_is_that_of_torch_s_own_product_and_draws_no_number(one_thread: None) -> None:
    """Best against best, within a factor of three on a machine that others use too; a wrong count of operations would be
    further off in one of two sizes."""
    for inner, outer in ((256, 512), (512, 128)):
        a, b = torch.randn(1024, inner), torch.randn(inner, outer)
        clock = torch.utils.benchmark.Timer("a @ b", globals={"a": a, "b": b}, num_threads=1)
        expected = 2 * 1024 * inner * outer / min(clock.blocked_autorange(min_run_time=0.2).times)
        before = torch.random.get_rng_state()
        rate = matmul_peak(CPU, torch.float32, inner, outer, 1024)
        assert torch.equal(before, torch.random.get_rng_state())
        assert expected / 3 < rate < 3 * expected


def test_saves_are_not_in_a_step_s_seconds(
    tiny_llama: Path, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = loop.save_state

    def slow(*arguments):
        time.sleep(0.5)
        return save(*arguments)

    monkeypatch.setattr(loop, "save_state", slow)
    began = time.perf_counter()
    tune(tiny_llama, out=tmp_path / "out", data=[texts], steps=4, save_every=1)
    whole = time.perf_counter() - began
    assert sum(entry["seconds"] for entry in entries(tmp_path / "out")) < whole - 4 * 0.5


def test_after_three_steps_the_end_is_foretold_once() -> None:
    """By the median, so that a slow first step weighs nothing."""
    recipe = resolved_recipe("paper", parameters=1, length=64, steps=100)
    said = []
    ours = Meter(None, recipe, "full", CPU, torch.float32, 0)
    for seconds in (60.0, 6.0, 6.0, 6.0, 6.0):
        ours.figures(seconds)
        said.append(ours.estimate())
    assert said == [None, None, "after 3 steps: about 10 min in all, saves not counted", None, None]
    resumed = Meter(None, recipe, "full", CPU, torch.float32, 77)
    for _ in range(3):
        resumed.figures(9.0)
    assert resumed.estimate() == "after 3 more steps: about 3 min for the 20 that are left"
    short = Meter(None, recipe, "full", CPU, torch.float32, 97)
    for _ in range(3):
        short.figures(9.0)
    assert short.estimate() is None


def test_a_run_says_it(tiny_llama: Path, texts: Path, tmp_path: Path) -> None:
    heard = Heard()
    tune(tiny_llama, out=tmp_path / "out", data=[texts], steps=5, progress=heard)
    assert len([note for note in heard.notes if re.fullmatch(r"after 3 steps: about \d+ s in all, .*", note)]) == 1


def test_beside_the_bar() -> None:
    entry = {"loss": 3.21456, "tokens_per_second": 51234.0, "memory_gib": 12.345, "of_peak": 0.4321}
    assert shown(entry) == {"loss": "3.21", "tokens_per_second": "5.12e+04", "memory": "12.3 GiB", "of_peak": "43%"}
    assert "of_peak" not in shown({key: entry[key] for key in entry if key != "of_peak"})
