"""Whole plans: what is chosen, what is advised, what is refused, and how they are corrected."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import ropewalk
from ropewalk.errors import CheckpointError, DataError, RopeError
from ropewalk.planning.forecast import corrected, plan
from ropewalk.planning.job import SMALL, STEPS
from ropewalk.planning.memory import POLICIES, Load, memory_of
from ropewalk.planning.needs import needs_table, papers_gpus, papers_sequences
from ropewalk.planning.shapes import paper_config, shape_of
from ropewalk.train.recipe import SMALL as TUNE_SMALL
from ropewalk.train.recipe import resolved_recipe

ROOT = Path(__file__).parents[2]


def entry(answer: dict, policy: str) -> dict:
    return next(entry for entry in answer["policies"] if entry["policy"] == policy)


def test_a_folder_with_only_a_config_suffices_and_torch_is_not_imported(tiny_llama: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((tiny_llama / "config.json").read_bytes())
    alone, whole = (plan(folder, to=256, gpu_type="cpu") for folder in (tmp_path, tiny_llama))
    assert alone | {"model": ""} == whole | {"model": ""}
    program = "import sys, ropewalk; ropewalk.plan(sys.argv[1], to=256); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True)


def test_the_function_is_the_packages_own() -> None:
    assert ropewalk.plan is plan and "plan" in ropewalk.__all__


@pytest.mark.parametrize("policy", ["none", "lean", "lean-thin", "offload"])
def test_the_parts_add_up(policy: str) -> None:
    held = entry(plan("llama-13b", to=16384, gpus=8), policy)["memory"]
    parts = [held[part] for part in ("weights", "copies", "gradients", "optimizer", "kept")]
    assert held["total"] == sum(parts) + max(held["working"], held["loss"])


def test_the_fastest_that_fits_is_chosen() -> None:
    answer = plan("llama-7b", to=32768, gpus=8)
    fitting = [e for e in answer["policies"] if e["fits"]]
    assert answer["chosen"] == min(fitting, key=lambda e: e["seconds_a_step"])["policy"]
    assert 0 < len(fitting) < len(answer["policies"])
    assert not answer["advice"]
    assert plan("pilot", to=1024)["chosen"] == "none"


def test_a_run_of_7b_at_64k_is_what_it_is_by_hand() -> None:
    """400 steps of 64 sequences of 65,536 tokens: 1.53e20 model FLOPs; lean makes 2 P S more and 1 u more."""
    answer = plan("llama-7b", to=65536, steps=400, gpus=8, gpu_type="h200")
    body, head, unit = 6.476e9, 0.131e9, 32 * 4096 * 65536**2
    assert 64 * 400 * (6 * (body + head) * 65536 + 6 * unit) == pytest.approx(1.53e20, rel=3e-3)
    lean = entry(answer, "lean")
    assert lean["flops_a_step"] * 400 == pytest.approx(1.53e20 + 64 * 400 * (2 * body * 65536 + unit), rel=3e-3)
    assert lean["gpu_hours"] == pytest.approx(8 * lean["hours"])
    assert answer["run"]["tokens"] == 400 * 64 * 65536


def test_when_nothing_fits_the_numbers_that_would_are_said() -> None:
    answer = plan("llama-7b", to=131072, gpus=1)
    assert answer["chosen"] is None
    said = "\n".join(answer["advice"])
    for what in ("more GPUs: ", "--adapter lora", "usable"):
        assert what in said
    count = int(said.split("more GPUs: ")[1].split()[0])
    assert plan("llama-7b", to=131072, gpus=count)["chosen"]
    assert plan("llama-7b", to=131072, gpus=count - 1)["chosen"] is None


def test_a_shorter_target_that_is_said_to_fit_fits_and_the_next_does_not() -> None:
    answer = plan("llama-7b", to=64 * 2**20, gpus=8)
    said = "\n".join(answer["advice"])
    length = int(said.split("a shorter target: ")[1].split()[0])
    assert plan("llama-7b", to=length, gpus=8)["chosen"]
    assert plan("llama-7b", to=length + 1024, gpus=8)["chosen"] is None
    assert answer["devices"]["layout"] == {"data": 8, "sequence": 1}  # no layout fits
    assert "shared by at most 32 of them" in said
    assert "--recipe pose" in said and "original 2048 tokens" in said


def test_a_sequence_is_shared_by_as_few_as_bear_it() -> None:
    """Whole sequences need no talk around attention; where one does not fit, the fewest GPUs that divide the heads."""
    assert plan("llama-7b", to=8192, gpus=8)["devices"]["layout"] == {"data": 8, "sequence": 1}
    long = plan("llama-7b", to=2**20, gpus=8, gpu_type="h200")
    sequence = long["devices"]["layout"]["sequence"]
    assert long["chosen"] and sequence > 1
    shape, memory = shape_of(paper_config("llama-7b")), 141 * 10**9 * 0.94
    for ranks in (sequence, sequence // 2):
        load = Load(tokens=2**20 // ranks, gpus=8, sequence=ranks)
        least = min(memory_of(shape, load, policy, "bfloat16").total for policy in POLICIES)
        assert (least <= memory) == (ranks == sequence)
    assert plan("llama-7b", to=8192, gpus=16, batch_tokens=4 * 8192)["devices"]["layout"] == {"data": 4, "sequence": 4}


def test_batches_are_those_of_tune() -> None:
    assert (SMALL, STEPS) == (TUNE_SMALL, resolved_recipe("paper", parameters=10**9, length=8, steps=1000).steps)
    for model, parameters in (("llama-7b", 6_738_415_616), ("pilot", 1_967_808)):
        ours = plan(model, to=4096)["run"]
        theirs = resolved_recipe("paper", parameters=parameters, length=4096, steps=1000)
        assert (ours["sequences"], ours["batch_tokens"]) == (theirs.sequences, theirs.batch_tokens)


def test_sequences_that_do_not_divide_are_said_and_counted() -> None:
    answer = plan("llama-7b", to=8192, gpus=12)
    assert "do not divide by 12" in answer["notes"][0]
    seconds = [entry(plan("llama-7b", to=8192, gpus=n), "lean")["seconds_a_step"] for n in (12, 13)]
    assert seconds[0] / seconds[1] == pytest.approx(6 / 5, rel=0.01)  # ceil(64 / 12), ceil(64 / 13)


def test_another_family_is_counted_from_its_weights(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    sides = {"model_type": "helium", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "head_dim": 8,
             "vocab_size": 10, "max_position_embeddings": 64, "rope_theta": 1e5, "intermediate_size": 20}  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(sides))
    with pytest.raises(CheckpointError, match="no formula here"):
        plan(tmp_path, to=128)
    save_file({"weight": torch.zeros(1234)}, tmp_path / "model.safetensors")
    answer = plan(tmp_path, to=128)
    assert answer["parameters"] == 1234 and "counted from its weights" in answer["notes"][0]


def test_a_model_without_rotary_positions_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "gpt2", "n_embd": 8}')
    with pytest.raises(CheckpointError, match="a learned table of absolute positions"):
        plan(tmp_path, to=4096)


@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        ({"to": 1024}, RopeError, "below the window of 2048"),
        ({"gpu_type": "h20"}, DataError, "Did you mean 'h200'"),
        ({"adapter": "lora++"}, DataError, r"Did you mean 'lora\+'"),
        ({"dtype": "bf16"}, DataError, "Did you mean 'bfloat16'|Known: bfloat16"),
        ({"gpu_memory": 80}, DataError, "which no GPU has"),
        ({"gpu_memory": 10**14}, DataError, "which no GPU has"),
        ({"gpus": 0}, DataError, "--gpus is 0"),
        ({"gpus": 65}, DataError, "Give at most 64"),
        ({"gpus": 2, "gpu_type": "cpu"}, DataError, "Leave --gpus out"),
        ({"steps": 0}, DataError, "--steps is 0"),
        ({"batch_tokens": 10_000}, DataError, "Give a multiple, such as 8192"),
    ],
)
def test_values_that_make_no_run_are_refused(given: dict, error: type, says: str) -> None:
    with pytest.raises(error, match=says):
        plan("llama-7b", **({"to": 8192} | given))


def test_times_are_corrected_by_the_median_and_memory_stays() -> None:
    guess = plan("llama-7b", to=8192, gpus=8)
    assumed = entry(guess, guess["chosen"])["seconds_a_step"]
    before = json.dumps(guess)
    right = corrected(guess, [20 * assumed, 1.5 * assumed, 1.4 * assumed])
    assert json.dumps(guess) == before
    assert right["correction"]["factor"] == pytest.approx(1.5)
    for policy in ("none", "lean", "lean-thin", "offload"):
        old, new = entry(guess, policy), entry(right, policy)
        assert new["memory"] == old["memory"] and new["flops_a_step"] == old["flops_a_step"]
        for key in ("seconds_a_step", "hours", "gpu_hours"):
            assert new[key] == pytest.approx(1.5 * old[key])
        assert new["tokens_a_second"] == pytest.approx(old["tokens_a_second"] / 1.5)
    again = corrected(right, [3 * assumed])
    assert again["correction"]["factor"] == pytest.approx(3)
    by_other = corrected(guess, [2 * entry(guess, "offload")["seconds_a_step"]], policy="offload")
    assert by_other["correction"]["factor"] == pytest.approx(2)


@pytest.mark.parametrize("measured", [[], [0.0], [1.0, -1.0]])
def test_steps_that_took_no_time_correct_nothing(measured: list[float]) -> None:
    with pytest.raises(DataError, match="steps that were measured"):
        corrected(plan("llama-7b", to=8192), measured, policy="lean")
    with pytest.raises(DataError, match="unknown policy"):
        corrected(plan("llama-7b", to=8192), [1.0], policy="leen")


def test_the_papers_runs_are_those_of_the_paper() -> None:
    """64 sequences on 32 A100 for 7B, 13B and 33B at 8,192; 128 on 128 for everything else."""
    small = {(model, 8192) for model in ("llama-7b", "llama-13b", "llama-33b")}
    for model in ("llama-7b", "llama-13b", "llama-33b", "llama-65b"):
        for length in (8192, 16384, 32768):
            expected = (64, 32) if (model, length) in small else (128, 128)
            assert (papers_sequences(model, length), papers_gpus(model, length)) == expected


def test_the_table_in_the_docs_is_what_the_function_gives() -> None:
    results = (ROOT / "docs" / "results.md").read_text()
    section = results.split("## What tuning will need", 1)[1].split("\n## ", 1)[0]
    table = [line for line in section.splitlines() if line.startswith("|")]
    assert table == needs_table().splitlines()
