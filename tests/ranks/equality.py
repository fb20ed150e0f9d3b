"""Run by torchrun on four processes: each layout trains what one process trains, and each rank writes how far it came.

Ranks 0 and 1 try two for data while ranks 2 and 3 try two for a sequence; then all four try both. A save of four is read
by one and a save of one by four. At last all four tune and evaluate together, as the verbs do. Two processes train the
case QUICK and share the texts of an evaluation, and no more.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh

from ropewalk.checkpoint.folder import open_checkpoint
from ropewalk.errors import DataError
from ropewalk.evals.evaluate import evaluate
from ropewalk.model.adapters import Adapter, attached, chosen_adapter
from ropewalk.model.load import load_model
from ropewalk.model.ranked import divided, load_hollow
from ropewalk.model.ranks import ALL, ALONE, DATA, SEQUENCE, Ranks
from ropewalk.model.sharding import local, whole
from ropewalk.rope.spec import Window
from ropewalk.train.loop import Trainer
from ropewalk.train.recipe import Recipe
from ropewalk.train.rows import Row, TokenRows
from ropewalk.train.state import saves
from ropewalk.train.tune import tune

LENGTH, STEPS = 30, 3  # 29 targets: no number of ranks divides them
RECIPE = Recipe(
    name="paper", steps=STEPS, length=LENGTH, batch_tokens=4 * LENGTH, learning_rate=3e-3, warmup_steps=2,
    weight_decay=0.1, clip_norm=0.5, window=Window(30, 64),
)  # fmt: skip
KEEPS = ["everything", "input"]
TUNED: dict[str, Any] = {"steps": 3, "learning_rate": 3e-3, "dtype": "float64", "save_every": 2, "batch_tokens": 512}
FEW: dict[str, Any] = {"batch_tokens": 256}  # two sequences a step: two of four ranks have none
EVALUATED: dict[str, Any] = {"tasks": ["perplexity", "passkey"], "lengths": [64, 256], "max_tokens": 2000}
SHARED: dict[str, Any] = {"dtype": "float64", "device": "cpu"}
QUICK_EVALUATED = EVALUATED | SHARED | {"tasks": ["perplexity"], "max_tokens": 700}
CASES: dict[str, dict[str, Any]] = {
    "full": {},
    "lora+": {"adapter": "lora+"},
    "packed": {"documents": True, "keeps": ["attention", "everything"]},
    "pose": {"chunks": 2},
    "accumulated": {"sequences": 5, "micro": LENGTH},
    "prompts that are no targets": {"masked": True},
    "heads that four do not divide": {"model": "twelve", "keeps": ["attention", "everything"]},
    "pieces, packed, lora": {"adapter": "lora", "documents": True, "mixed": 0.5, "sequences": 3, "micro": LENGTH},
}
QUICK = "pieces, packed, lora"
ALL_LAYOUTS = ("full", "packed", "heads that four do not divide")
WHOLE, ONE_ROW = chosen_adapter("full"), chosen_adapter("lora", rank=1)


class Masked(TokenRows):
    """The first tokens of a row are no targets, as a prompt's: some ranks of a sequence are asked for nothing."""

    def row(self, number: int) -> Row:
        row = super().row(number)
        row.weights[:17] = 0.0
        return row


def rows_of(case: dict[str, Any], seed: int = 1) -> TokenRows:
    rng = np.random.default_rng(0)
    return (Masked if case.get("masked") else TokenRows)(
        rng.integers(2, 300, 40 * LENGTH).astype(np.int32), LENGTH, seed=seed,
        starts=np.array([0, 11, 40, 95, 96, 300]) if case.get("documents") else None,
        chunks=case.get("chunks", 1), reach=64, mixed=case.get("mixed", 0.0), piece=10,
    )  # fmt: skip


def trained(folder: Path, case: dict[str, Any], ranks: Ranks) -> Any:
    """Losses of the steps, and the weights before and after them, whole."""
    from ropewalk.train import loop

    loop.MICRO_TOKENS = case.get("micro", 8192)
    checkpoint = open_checkpoint(folder / case.get("model", "model"))
    load = load_model if ranks.line is None else load_hollow
    loaded = load(checkpoint, dtype="float64", device="cpu")
    attached(loaded.model, chosen_adapter(case.get("adapter", "full")), seed=5)
    weights = None if ranks.line is None else divided(loaded, ranks)
    recipe = replace(RECIPE, batch_tokens=case.get("sequences", 4) * LENGTH)
    trainer = Trainer(
        loaded.model, recipe, rows_of(case), folder / "none", torch.float64, keeps=case.get("keeps", KEEPS),
        ranks=ranks, weights=weights,
    )  # fmt: skip
    before = weights_of(loaded.model)
    losses = [trainer._one_step()["loss"] for _ in range(STEPS)]
    return losses, before, weights_of(loaded.model)


def weights_of(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: whole(p.detach()).clone() for name, p in model.named_parameters()}


def apart(folder: Path, case: dict[str, Any], ranks: Ranks, alone: Any) -> dict[str, float]:
    losses, _, weights = trained(folder, case, ranks)
    true_losses, before, true_weights = alone
    assert weights.keys() == true_weights.keys()
    return {
        "loss": max(abs(a - b) for a, b in zip(losses, true_losses, strict=True)),
        "weights": max(float((weights[name] - true_weights[name]).abs().max()) for name in weights),
        "moved": max(float((true_weights[name] - before[name]).abs().max()) for name in weights),
    }


def part(jobs: int, data: int, sequence: int) -> Ranks:
    """This process's ranks, where the four work at so many jobs side by side."""
    mesh = init_device_mesh("cpu", (jobs, data, sequence), mesh_dim_names=("job", DATA, SEQUENCE))
    line = init_device_mesh("cpu", (jobs, data * sequence), mesh_dim_names=("job", ALL))
    return Ranks(line[ALL], mesh[DATA, SEQUENCE])


def trainer_of(
    folder: Path, run: Path, ranks: Ranks, learning_rate: float = 3e-3, *, adapter: Adapter = WHOLE, seed: int = 1
) -> Trainer:
    loaded = (load_model if ranks.line is None else load_hollow)(
        open_checkpoint(folder / "model"), dtype="float64", device="cpu"
    )
    attached(loaded.model, adapter, seed=5)
    weights = None if ranks.line is None else divided(loaded, ranks)
    recipe = replace(RECIPE, learning_rate=learning_rate)
    return Trainer(
        loaded.model, recipe, rows_of({}, seed), run, torch.float64, keeps=KEEPS, ranks=ranks, weights=weights
    )  # fmt: skip


def state_of(trainer: Trainer) -> dict[str, torch.Tensor]:
    """Weights and moments, whole, by name."""
    state = weights_of(trainer.model)
    for name, parameter in trainer.model.named_parameters():
        state |= {f"{name}/{kind}": whole(value) for kind, value in trainer.optimizer.state[parameter].items()}
    return state


def carried(folder: Path, ranks: Ranks) -> dict[str, float]:
    """How far what is read lies from what was saved: by four and read by one, and the other way round.

    Of LoRA with one row three of the four hold no rows of A, nor of its moments.
    """
    found: dict[str, float] = {}
    for adapter in (WHOLE, ONE_ROW):
        for name, writers, readers in (("four to one", ranks, ALONE), ("one to four", ALONE, ranks)):
            run = folder / f"{adapter.name}-{name.replace(' ', '-')}"
            ranks.first(lambda run=run: (run / "saves").mkdir(parents=True))
            writer = trainer_of(folder, run, writers, adapter=adapter)
            for _ in range(2):  # after the first A is as it was, for B began at zero
                writer._one_step()
            saved = state_of(writer)
            if writers is ranks or ranks.is_first:
                writer.save(1)
            ranks.wait()
            reader = trainer_of(folder, run, readers, adapter=adapter)
            reader.resume()
            read = state_of(reader)
            assert reader.step == 2 and read.keys() == saved.keys()
            assert len(saved) == len(weights_of(writer.model)) + 3 * len(writer.parameters)
            found[f"{adapter.name}, {name}"] = max(float((read[key] - saved[key]).abs().max()) for key in saved)
    return found


def refusals(folder: Path, ranks: Ranks) -> list[str]:
    """What is said when one rank's slice of a weight stops being a number, and when only what is made of it does."""
    said = []
    for name, value, act in (("k_proj", float("nan"), "save"), ("v_proj", 1e200, "step")):
        run = folder / f"ruined-{act}"
        ranks.first(lambda run=run: (run / "saves").mkdir(parents=True))
        trainer = trainer_of(folder, run, ranks)
        trainer._one_step()
        trainer.save(1)
        trainer.step += act == "save"
        weight = local(trainer.model.get_submodule(f"model.layers.1.self_attn.{name}").weight.detach())
        if ranks.number == ranks.count - 1:
            weight[-1] = value
        try:
            trainer.save(1) if act == "save" else trainer._one_step()
        except DataError as error:
            said.append(str(error))
        assert [save.step for save in saves(run)] == [1]
    return said


def verbs(folder: Path) -> None:
    """What `torchrun -m ropewalk` runs, but for the command line."""
    told = TUNED | {"data": [folder / "text.txt"]}
    tune(folder / "long", out=folder / "tuned-4", sequence_parallel=2, **told)
    tune(folder / "stock", out=folder / "stock-4", **told)
    tune(folder / "stock", out=folder / "stock-few", **told | FEW)
    evaluate("pilot", out=folder / "evaluated-4", **EVALUATED)
    evaluate("pilot", out=folder / "shared-4", sequence_parallel=2, **EVALUATED | SHARED)


def compared(folder: Path, case: str, layouts: list[Ranks]) -> dict[str, dict[str, float]]:
    """How far each layout comes from one process, by case and layout."""
    alone = trained(folder, CASES[case], ALONE)
    return {
        f"{case}, {ranks.layout.data} x {ranks.layout.sequence}": apart(folder, CASES[case], ranks, alone)
        for ranks in layouts
    }


def all_of_four(folder: Path) -> dict[str, dict[str, float]]:
    by_data, by_sequence = part(2, 2, 1), part(2, 1, 2)
    pair = by_data if dist.get_rank() < 2 else by_sequence
    fours = [part(1, 2, 2), part(1, 4, 1), part(1, 1, 4)]
    found: dict[str, dict[str, float]] = {}
    for name in CASES:
        found |= compared(folder, name, [pair, fours[0]] + (fours[1:] if name in ALL_LAYOUTS else []))
    found["carried"] = carried(folder, fours[0])
    (folder / f"said-{dist.get_rank()}.json").write_text(json.dumps(refusals(folder, fours[0])))
    verbs(folder)
    return found


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    if dist.get_world_size() == 4:
        found = all_of_four(folder)
    else:
        found = compared(folder, QUICK, [part(1, 2, 1), part(1, 1, 2)])
        evaluate("pilot", out=folder / "shared-2", sequence_parallel=2, **QUICK_EVALUATED)
    (folder / f"apart-{dist.get_rank()}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
