"""docs/cluster.md: its commands, run as written on two CPU processes, and its table, made again."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from torch.distributed.run import get_args_parser

from ropewalk.planning.forecast import plan
from ropewalk.record import read_run
from tests.conftest import make_llama
from tests.ranks.launching import ROOT, ended

PAGE = (ROOT / "docs" / "cluster.md").read_text()
BLOCKS = [block.replace("\\\n", " ") for block in re.findall(r"```bash\n(.*?)```", PAGE, flags=re.S)]
COMMANDS = [line for block in BLOCKS if "#SBATCH" not in block for line in block.splitlines()]
SMALL = ["--steps", "2", "--dtype", "float32", "--device", "cpu"]


def test_the_pages_table_is_what_plan_says() -> None:
    cells = re.findall(r"^\| (llama-\S+) \| (.*) \|$", PAGE, flags=re.M)
    assert [name for name, _ in cells] == ["llama-7b", "llama-13b", "llama-33b", "llama-65b"]
    for name, row in cells:
        for length, cell in zip((8192, 16384, 32768), row.split(" | "), strict=True):
            count, data, sequence, held, policy = re.fullmatch(r"(\d+): (\d+) x (\d+), (\d+) GB, (\S+)", cell).groups()
            answer = plan(name, to=length, gpus=int(count), gpu_memory=80 * 10**9)
            assert answer["devices"]["layout"] == {"data": int(data), "sequence": int(sequence)}
            chosen = next(entry for entry in answer["policies"] if entry["policy"] == answer["chosen"] == policy)
            assert round(chosen["memory"]["total"] / 1e9) == int(held)
            assert int(count) == 8 or plan(name, to=length, gpus=int(count) // 2)["chosen"] is None


def test_the_slurm_script_is_a_script() -> None:
    """bash reads it, torchrun its options, and both are told of as many machines and GPUs. Nothing is begun anew by
    torchrun, which counts restarts machine by machine."""
    (script,) = (block for block in BLOCKS if "#SBATCH" in block)
    subprocess.run(["bash", "-n", "-c", script], check=True)
    asked = dict(re.findall(r"^#SBATCH --([a-z-]+)(?:=(\S+))?$", script, flags=re.M))
    words = shlex.split(script.splitlines()[-1])
    given = get_args_parser().parse_args(words[words.index("torchrun") + 1 :])
    assert words[0] == "srun" and given.module and given.training_script == "ropewalk"
    assert (given.nnodes, given.nproc_per_node) == (asked["nodes"], asked["gpus-per-node"])
    assert asked["ntasks-per-node"] == "1" and given.max_restarts == 0
    assert asked["signal"] == f"TERM@{given.shutdown_timeout}"
    assert {"requeue", "exclusive", "cpus-per-task"} <= asked.keys()
    assert given.training_script_args[0] == "tune" and "--resume" in given.training_script_args


@pytest.mark.ranks
def test_the_pages_commands_run(tiny_tokenizer: Path, texts: Path, tmp_path: Path) -> None:
    """In order, in one folder; only sizes are cut: two processes for eight, two steps, a tiny model."""
    make_llama(tmp_path / "tiny", tiny_tokenizer, num_attention_heads=4, num_key_value_heads=2)
    named = {
        "path/to/model": str(tmp_path / "tiny"), "path/to/texts": str(texts), "path/to/held-out": str(texts),
        "32k": "128", "8": "2", "4": "2",
    }  # fmt: skip
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    assert (
        sum("torchrun" in line for line in COMMANDS) == 5 and sum(line.startswith("ropewalk") for line in COMMANDS) == 2
    )
    for line in COMMANDS:
        words = [named.get(word, word) for word in shlex.split(line)]
        if "tune" in words:
            words += SMALL
        if "evaluate" in words:
            words += ["--lengths", "64", "--max-tokens", "600", "--allow-overlap", "--device", "cpu"]
            words[words.index("perplexity,passkey")] = "perplexity"  # a window of 64 has no room for a passkey
        ended(words, more={"PATH": path}, cwd=tmp_path)
    plain, shared = (read_run(tmp_path / name) for name in ("measured", "measured-2x4"))
    assert shared.results[0].value == pytest.approx(plain.results[0].value, rel=1e-4)  # float32
    assert shared.resolved["layout"] == {"data": 1, "sequence": 2}
    for name in ("tuned-1", "tuned-8", "tuned-2x4", "tuned-4"):
        assert (tmp_path / name / "model.safetensors").exists()
