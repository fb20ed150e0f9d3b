"""`ropewalk plan` on the command line."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ropewalk.arguments import device_memory
from ropewalk.cli import app
from ropewalk.errors import DataError

RUNNER = CliRunner()


def planned(*arguments: object, code: int = 0) -> str:
    result = RUNNER.invoke(app, ["plan", *map(str, arguments)])
    assert result.exit_code == code, f"{result.output}\n{result.exception!r}"
    return result.output


def test_people_get_a_table_and_the_choice() -> None:
    text = planned("llama-7b", "--to", "8k", "--gpus", 8)
    for said in (
        "none",
        "lean-thin",
        "kept by all layers",
        "AdamW's moments",
        "the fastest that fits: lean,",
        "assumed: A100",
    ):
        assert said in text
    assert "6,738,415,616 parameters" in text and "524,288,000 tokens in all" in text


def test_what_to_change_is_said_where_nothing_fits() -> None:
    text = planned("llama-65b", "--to", "32k", "--gpus", 8)
    assert "nothing fits:" in text and "more GPUs: " in text and "--adapter lora:" in text


def test_json_is_the_same_answer() -> None:
    answer = json.loads(
        planned("llama-7b", "--to", "8k", "--gpus", 8, "--gpu-memory", 40, "--adapter", "lora", "--json")
    )
    assert answer["run"]["adapter"] == "lora" and answer["devices"]["memory_bytes"] == 40 * 10**9
    assert [entry["policy"] for entry in answer["policies"]] == ["none", "lean", "lean-thin", "offload"]


def test_the_machine_itself_has_no_host_beside_it(tiny_llama: Path) -> None:
    text = planned(tiny_llama, "--to", 128, "--gpu-type", "cpu")
    assert "this machine's CPU" in text and "offload" not in text and "GPU-hours" not in text


@pytest.mark.parametrize("said", ["80GB", "80 GB", "80", " 80 ", "80e0"])
def test_memory_of_a_gpu_counts_gigabytes_where_no_unit_is_said(said: str) -> None:
    if "e" in said:
        with pytest.raises(DataError):
            device_memory(said)
    else:
        assert device_memory(said) == 80 * 10**9


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--to", "1k"), "below the window of 2048"),
        (("--to", "8k", "--gpu-memory", "80KB"), "no GPU has"),
        (("--to", "8k", "--gpu-memory", "many"), "no amount of memory"),
        (("--to", "8k", "--gpu-type", "a10"), "Did you mean 'a100'"),
        (("--to", "8k", "--adapter", "lor"), "Did you mean 'lora'"),
    ],
)
def test_mistakes_end_with_code_two(arguments: tuple, says: str) -> None:
    text = planned("llama-7b", *arguments, code=2)
    assert says in text and "Traceback" not in text


def test_a_model_without_rotary_positions_ends_with_code_two(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bloom"}')
    assert "ALiBi" in planned(tmp_path, "--to", "8k", code=2)


def test_help_teaches() -> None:
    text = planned("--help")
    assert "--gpu-memory" in text and "llama-7b" in text
