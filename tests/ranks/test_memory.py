"""What ranks hold is their part: of weights and moments, of a row's activations, and of a checkpoint that is opened."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import LlamaConfig

from ropewalk.extension import extend
from ropewalk.planning.memory import Load, Memory, memory_of
from ropewalk.planning.shapes import shape_of
from tests.conftest import make_llama
from tests.ranks.launching import ROOT, SECONDS, environment, launched

LENGTH = 2048
SIDES = {
    "vocab_size": 512, "hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 12, "num_attention_heads": 8,
    "num_key_value_heads": 4, "head_dim": 64, "window": 4096,
}  # fmt: skip
# memory that is given back leaves the process at once, so that what is held can be seen
GIVEN_BACK = {"MALLOC_MMAP_THRESHOLD_": "65536"}


def measured(folder: Path, processes: int, *arguments: str) -> dict[str, int]:
    """The most that any rank held."""
    folder.mkdir()
    if processes == 1:
        command = [sys.executable, "-m", "tests.ranks.memory", arguments[0], arguments[1], str(folder), *arguments[2:]]
        subprocess.run(command, env=environment() | GIVEN_BACK, cwd=ROOT, check=True, timeout=SECONDS)
    else:
        launched(
            processes, "-m", "tests.ranks.memory", arguments[0], arguments[1], str(folder), *arguments[2:],
            more=GIVEN_BACK,
        )  # fmt: skip
    ranks = [json.loads(path.read_text()) for path in folder.glob(f"{arguments[0]}-*.json")]
    assert len(ranks) == processes
    return {name: max(rank[name] for rank in ranks) for name in ranks[0]}


def planned(folder: Path, gpus: int, sequence: int) -> tuple[int, int]:
    """Bytes of the state, and of what a step adds to it, by the formula."""
    config = json.loads((folder / "config.json").read_text())
    load = Load(tokens=LENGTH // sequence, gpus=gpus, sequence=sequence, on_gpu=False)
    held: Memory = memory_of(shape_of(config, 0), load, "none", "float32")
    state = held.weights + held.gradients + held.optimizer
    return state, held.total - state


@pytest.mark.ranks
def test_two_ranks_hold_half_of_the_state_and_of_a_shared_row(tmp_path: Path, tiny_tokenizer: Path) -> None:
    model = str(make_llama(tmp_path / "model", tiny_tokenizer, **SIDES))
    one = measured(tmp_path / "1", 1, "step", model, "1", str(LENGTH))
    data = measured(tmp_path / "2x1", 2, "step", model, "1", str(LENGTH))
    sequence = measured(tmp_path / "1x2", 2, "step", model, "2", str(LENGTH))
    print(f"one process {one}, data 2 {data}, sequence 2 {sequence}")
    assert data["state"] <= 0.55 * one["state"] and sequence["state"] <= 0.55 * one["state"]
    assert sequence["step"] <= 0.55 * one["step"]
    for found, gpus, ranks in ((one, 1, 1), (data, 2, 1), (sequence, 2, 2)):
        state, step = planned(Path(model), gpus, ranks)
        assert found["state"] == pytest.approx(state, rel=0.1)  # python objects, optimizer's lists
        assert found["step"] == pytest.approx(step, rel=0.15)  # as `plan_predicts_memory` allows one process


def random_checkpoint(folder: Path, tokenizer: Path, gibibytes: float) -> int:
    """A Llama of random float32 weights in files of up to 200 MB, made a file at a time; its bytes."""
    hidden, inner, vocabulary = 1024, 2816, 8192
    layer = hidden * hidden * 3 + 3 * hidden * inner + 2 * hidden
    layers = round((gibibytes * 2**28 - 2 * vocabulary * hidden) / layer)
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=hidden, intermediate_size=inner, num_hidden_layers=layers,
        num_attention_heads=16, num_key_value_heads=8, max_position_embeddings=64, dtype="float32",
        architectures=["LlamaForCausalLM"],
    )  # fmt: skip
    config.save_pretrained(folder)
    for file in tokenizer.iterdir():
        shutil.copyfile(file, folder / file.name)
    shapes = {"model.embed_tokens.weight": (vocabulary, hidden), "lm_head.weight": (vocabulary, hidden)}
    for n in range(layers):
        at = f"model.layers.{n}."
        for kind, rows in (("q", hidden), ("k", hidden // 2), ("v", hidden // 2), ("o", hidden)):
            shapes[f"{at}self_attn.{kind}_proj.weight"] = (rows, hidden)
        shapes |= {f"{at}mlp.{kind}_proj.weight": (inner, hidden) for kind in ("gate", "up")}
        shapes[f"{at}mlp.down_proj.weight"] = (hidden, inner)
        shapes |= {f"{at}{kind}_layernorm.weight": (hidden,) for kind in ("input", "post_attention")}
    shapes["model.norm.weight"] = (hidden,)
    return _written(folder, shapes)


def _written(folder: Path, shapes: dict[str, tuple[int, ...]]) -> int:
    generator = torch.Generator().manual_seed(0)
    where: dict[str, str] = {}
    names, total = list(shapes), 0
    for number in range(0, len(names), 20):
        file = f"model-{number // 20 + 1:05}-of-{-(-len(names) // 20):05}.safetensors"
        tensors = {name: torch.randn(shapes[name], generator=generator) for name in names[number : number + 20]}
        save_file(tensors, folder / file, metadata={"format": "pt"})
        where |= dict.fromkeys(tensors, file)
        total += sum(tensor.nbytes for tensor in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return total


def assert_same_tensors(ours: Path, theirs: Path) -> None:
    """Bit by bit, read one at a time; the files may be cut elsewhere."""
    where = {}
    for path in sorted(theirs.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            where |= dict.fromkeys(file.keys(), path)
    seen = 0
    for path in sorted(ours.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():
                with safe_open(where[name], framework="pt") as other:
                    a, b = (f.get_tensor(name).view(torch.int32) for f in (file, other))
                    assert torch.equal(a, b), name
                seen += 1
    assert seen == len(where) > 0


def opened_on_two(folder: Path, tokenizer: Path, gibibytes: float) -> tuple[int, dict[str, int]]:
    (folder / "base").mkdir(parents=True)
    size = random_checkpoint(folder / "base", tokenizer, gibibytes)
    extend(folder / "base", to=128, out=folder / "long")
    held = measured(folder / "back", 2, "open", str(folder / "long"))
    print(f"{size / 2**30:.2f} GiB opened on 2 ranks: {held}; of its size {held['opened'] / size:.3f}")
    assert_same_tensors(folder / "back", folder / "base")
    assert list((folder / "back").glob("model-*.safetensors"))
    return size, held


@pytest.mark.ranks
def test_a_checkpoint_is_whole_on_no_rank(tmp_path: Path, tiny_tokenizer: Path) -> None:
    """1 GiB. What a rank holds for itself, libraries and all; what it maps, which that does not count; and what it makes
    where the dtype is another: its half of the numbers, of two bytes each, and a tensor more."""
    size, held = opened_on_two(tmp_path / "1", tiny_tokenizer, 1.0)
    assert max(held["opened"], held["saving"]) < 0.65 * size
    assert held["own"] < 0.51 * size
    assert held["mapped"] < 0.8 * size  # the system maps up to 2 MiB around what is read, half of a tensor here
    assert held["cast"] - held["libraries"] < 0.3 * size
