"""Tries every command of every recipe without weights, network or GPU, and says what it found.

Of each command: the command line takes it; its numbers make a rotation, a recipe and a plan that fits; its data sets are
pinned. Of each model: transformers builds it from the config as extended, without memory (the meta device), with as many
parameters as the table says, and computes the frequencies that the method asks for.

    python paper/recipes/dry_run.py
"""

import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from make import DATA, MEMORY
from models import MODELS, Model

from ropewalk.checkpoint.rope_config import read_ropes
from ropewalk.checkpoint.rope_writing import written
from ropewalk.planning.job import job_of
from ropewalk.planning.shapes import shape_of
from ropewalk.planning.work import device
from ropewalk.rope.options import rescaled_by
from ropewalk.rope.spec import RopeSpec, Window
from ropewalk.text.sources import sources
from ropewalk.train.recipe import resolved_recipe

FOLDER = Path(__file__).parent
COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Command:
    """One line: how many processes it starts, the verb, and what the command line made of its options."""

    line: str
    processes: int
    verb: str
    given: dict[str, Any]


def commands_of(text: str) -> Iterator[Command]:
    """The commands of a recipe's bash blocks. Raises SystemExit for one that the command line does not take."""
    variables: dict[str, str] = {"HEAD": "head"}
    for block in re.findall(r"```bash\n(.*?)```", text, flags=re.S):
        for line in block.splitlines():
            if assigned := re.fullmatch(r"([A-Z_]+)=(\S+)", line):
                variables[assigned[1]] = assigned[2]
                continue
            filled = re.sub(r"\$([A-Z_]+)", lambda found: variables[found[1]], line)
            yield _command(line, shlex.split(filled))


def _command(line: str, words: list[str]) -> Command:
    import typer.main

    from ropewalk.arguments import spread_data
    from ropewalk.cli import app

    start = words.index("ropewalk")
    processes = 1
    if words[0] == "torchrun":
        options = dict(zip(words[1:start:2], words[2:start:2], strict=False))
        processes = int(options.get("--nnodes", 1)) * int(options["--nproc-per-node"])
    verb, rest = words[start + 1], spread_data(words[start + 2 :])
    command = typer.main.get_command(app).commands[verb]  # type: ignore[attr-defined]
    try:
        given = command.make_context(verb, list(rest)).params
    except Exception as error:
        raise SystemExit(f"{line}\n  the command line does not take this: {error}") from error
    return Command(line, processes, verb, given)


def try_recipe(model: Model, text: str) -> list[str]:
    """What is wrong with a recipe, in sentences; empty if nothing is."""
    wrong: list[str] = []
    ropes: dict[str, RopeSpec] = {}
    for command in commands_of(text):
        given = command.given
        if data := given.get("data"):
            for one in sources(data).data_sets:
                if not COMMIT.fullmatch(one.revision or "") or one.given not in DATA.values():
                    wrong.append(f"{one.given} is not pinned")
        if command.verb == "extend":
            ropes[str(given["out"])] = extended(model, given)
        elif command.verb == "tune":
            wrong += _untunable(model, command, ropes[given["model"]])
        elif command.verb == "evaluate" and given["model"] != model.hub_id:
            window = ropes[given["model"].replace("/tuned", "/extended")].window.target
            if max(map(_tokens, given["lengths"].split(","))) != window:
                wrong.append(f"the longest length is not the window: {command.line}")
    return wrong


def extended(model: Model, given: dict[str, Any]) -> RopeSpec:
    """The rotation after an `extend`. Raises RopewalkError as it would."""
    assert given["model"] == model.hub_id
    return rescaled_by(
        given["method"], read_ropes(model.config, model.name)["full_attention"], _tokens(given["to"]), {}
    )


def _untunable(model: Model, command: Command, rope: RopeSpec) -> list[str]:
    given, wrong = command.given, []
    window = Window(rope.window.original, rope.window.target)
    batch = _tokens(given["batch_tokens"])
    recipe = resolved_recipe(
        given["recipe"], parameters=model.parameters, steps=given["steps"], learning_rate=given["learning_rate"],
        batch_tokens=batch, window=window,
    )  # fmt: skip
    if recipe.length != window.target or recipe.learning_rate != _papers_rate(model):
        wrong.append(f"length {recipe.length} at {recipe.learning_rate} is not the paper's: {command.line}")
    if recipe.sequences % command.processes:
        wrong.append(f"{recipe.sequences} sequences are not shared evenly by {command.processes}: {command.line}")
    job = job_of(shape_of(model.config), recipe.length, command.processes, MEMORY, device("a100"), batch_tokens=batch)
    if job.fastest() is None:
        wrong.append(f"{command.processes} GPUs do not bear it: {command.line}")
    return wrong


def _papers_rate(model: Model) -> float:
    return 1e-5 if model.parameters > 20e9 else 2e-5


def _tokens(text: str) -> int:
    from ropewalk.arguments import tokens

    return tokens(text)


def try_model(model: Model) -> list[str]:
    """Builds the model at its longest target on the meta device; compares parameters and frequencies."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    rope = read_ropes(model.config, model.name)["full_attention"]
    longer = rescaled_by("pi", rope, model.targets[-1], {})
    content = written(model.config, longer)
    config = AutoConfig.for_model(content.pop("model_type"), **content)
    with torch.device("meta"):
        built = AutoModelForCausalLM.from_config(config)
    count = sum(parameter.numel() for parameter in built.parameters())
    inverse_F, factor = ROPE_INIT_FUNCTIONS["linear"](config, torch.device("cpu"))
    wrong = [] if count == model.parameters else [f"{model.name} has {count} parameters, not {model.parameters}"]
    if not np.allclose(inverse_F.numpy(), longer.frequencies().inverse_F, rtol=1e-5) or factor != 1:
        wrong.append(f"transformers turns {model.name} by other frequencies")
    if config.max_position_embeddings != model.targets[-1]:
        wrong.append(f"{model.name} would have a window of {config.max_position_embeddings}")
    return wrong


def main() -> None:
    failed = False
    for model in MODELS:
        text = (FOLDER / f"{model.name}.md").read_text(encoding="utf-8")
        wrong = [*try_recipe(model, text), *try_model(model)]
        failed = failed or bool(wrong)
        print(f"{model.name}: {'; '.join(wrong) or f'{len(list(commands_of(text)))} commands pass'}", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
