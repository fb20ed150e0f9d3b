"""Writes the recipes of this folder, a file a model, from the one table in models.py, so that they cannot drift.

python paper/recipes/make.py            # writes *.md
python paper/recipes/make.py --check    # exit 1 if one is not what the table gives
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from models import BOOKS, DIRECT_STEPS, MODELS, PILE, RED_PAJAMA, Model

from ropewalk.planning.job import Job, fewest_gpus, job_of, laid_out
from ropewalk.planning.shapes import shape_of
from ropewalk.planning.work import device

FOLDER = Path(__file__).parent
MEMORY, NODE, STEPS = 80 * 10**9, 8, 1000  # bytes of a GPU; GPUs of a machine; the paper's steps


@dataclass(frozen=True)
class Arm:
    """One way to tune for a target."""

    name: str
    title: str
    method: str
    data: str  # one of DATA
    steps: int


DATA = {"PILE": PILE, "RED_PAJAMA": RED_PAJAMA, "BOOKS": BOOKS}


def arms(model: Model, target: int) -> Iterator[Arm]:
    yield Arm("pi", "Position Interpolation on the Pile", "pi", "PILE", STEPS)
    yield Arm("pi-redpajama", "the same on RedPajama", "pi", "RED_PAJAMA", STEPS)
    if target in model.direct:
        yield Arm("direct", "the baseline: direct tuning, ten times the steps", "none", "PILE", DIRECT_STEPS)


@dataclass(frozen=True)
class Forecast:
    """What `plan` says of one target: the fewest GPUs, those the commands use, policies and hours of 1,000 steps."""

    fewest: int
    gpus: int
    policy: str
    hours: float
    papers: tuple[int, float] | None


def forecast(model: Model, target: int) -> Forecast:
    """Of A100 with 80 GB. The commands use the fewest that bear the run, up to the next power of two."""
    sequences = model.sequences[target]
    job = job_of(shape_of(model.config), target, 1, MEMORY, device("a100"), batch_tokens=sequences * target)
    found = fewest_gpus(job)
    if found is None:
        raise SystemExit(f"{model.name} at {target} fits no number of GPUs up to {sequences}")
    gpus = 1 << (found[0] - 1).bit_length()
    policy, hours = _hours(job, gpus)
    count = model.papers_gpus.get(target)
    return Forecast(found[0], gpus, policy, hours, None if count is None else (count, _hours(job, count)[1]))


def _hours(job: Job, gpus: int) -> tuple[str, float]:
    there = laid_out(replace(job, gpus=gpus))
    policy = there.fastest()
    assert policy is not None
    return policy, there.seconds_a_step(policy) * STEPS / 3600


def tokens_text(count: int) -> str:
    """8192 as 8k, 1048576 as 1m: as the command line takes it."""
    for unit, size in (("m", 2**20), ("k", 2**10)):
        if count % size == 0:
            return f"{count // size}{unit}"
    return str(count)


def launched(gpus: int) -> str:
    """How a verb is started on so many GPUs: alone, or by torchrun, the same on every machine of eight."""
    if gpus == 1:
        return "ropewalk"
    if gpus <= NODE:
        return f"torchrun --nproc-per-node {gpus} -m ropewalk"
    return (
        f"torchrun --nnodes {gpus // NODE} --nproc-per-node {NODE} --rdzv-backend c10d --rdzv-endpoint $HEAD:29500 "
        "-m ropewalk"
    )


def shared(model: Model) -> str:
    """Of an evaluation: how many GPUs share the weights, and with them each text, where one would be filled by them."""
    sharing = 1
    while 2 * model.parameters > sharing * MEMORY / 2:  # two bytes each; half is for the texts
        sharing *= 2
    return "" if sharing == 1 else f" --sequence-parallel {sharing}"


def commands(model: Model, target: int, arm: Arm, planned: Forecast) -> list[str]:
    """The exact commands of one arm, each on a line."""
    place = f"{model.name}/{tokens_text(target)}/{arm.name}"
    batch = tokens_text(model.sequences[target] * target)
    recipe = "direct" if arm.method == "none" else "paper"
    lengths = [length for length in (2048, 4096, 8192, 16384, 32768) if length <= target]
    return [
        f"ropewalk extend {model.hub_id} --to {tokens_text(target)} --method {arm.method} --out {place}/extended",
        f"{launched(planned.gpus)} tune {place}/extended --data ${arm.data} --recipe {recipe} --steps {arm.steps} "
        f"--batch-tokens {batch} --learning-rate {model.learning_rate} --out {place}/tuned",
        f"{launched(planned.gpus)} evaluate {place}/tuned --data $BOOKS --lengths "
        f"{','.join(map(tokens_text, lengths))}{shared(model)} --out {place}/measured",
    ]


def recipe(model: Model) -> str:
    """The whole file of one model."""
    window, name = model.config["max_position_embeddings"], model.name
    own = "as in the paper." if model.papers_gpus else "the paper's for models up to 13B; half a million tokens a step."
    planned = {target: forecast(model, target) for target in model.targets}
    lines = [
        f"# {name}: {model.hub_id}",
        "",
        f"{model.parameters:,} parameters, a window of {window:,} tokens. Learning rate {model.learning_rate}, {own}",
        "Written by `paper/recipes/make.py`; what is common to all is in [README.md](README.md).",
        "",
        "| target | sequences a step | fewest A100, 80 GB | used here | hours, 1,000 steps | in the paper |",
        "|---|---|---|---|---|---|",
    ]
    for target, plan in planned.items():
        papers = "" if plan.papers is None else f"{plan.papers[0]} A100 (forecast: {plan.papers[1]:,.1f} h)"
        lines.append(
            f"| {tokens_text(target)} | {model.sequences[target]} | {plan.fewest} | {plan.gpus} ({plan.policy}) | "
            f"{plan.hours:,.1f} | {papers} |"
        )
    start = launched(planned[model.targets[0]].gpus)
    base = f"{start} evaluate {model.hub_id} --data $BOOKS --lengths {','.join(_within(window))}{shared(model)} --out base/{name}"
    lines += ["", "```bash", *(f"{variable}={value}" for variable, value in DATA.items()), base, "```"]
    for target, plan in planned.items():
        lines += ["", f"## To {tokens_text(target)} tokens"]
        for arm in arms(model, target):
            hours = plan.hours * arm.steps / STEPS
            title = f"{arm.title[:1].upper()}{arm.title[1:]}: {arm.steps:,} steps, forecast {hours:,.1f} hours."
            lines += ["", title, "", "```bash", *commands(model, target, arm, plan), "```"]
        measured = " ".join(f"{name}/{tokens_text(target)}/{arm.name}/measured" for arm in arms(model, target))
        lines += [
            "",
            "```bash",
            f"ropewalk report base/{name} {measured} --out {name}-{tokens_text(target)}.html",
            "```",
        ]
    return "\n".join([*lines, ""])


def _within(window: int) -> list[str]:
    return [tokens_text(length) for length in (2048, 4096, 8192) if length <= window]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--out", type=Path, default=FOLDER)
    arguments = parser.parse_args()
    drifted = []
    for model in MODELS:
        path, text = arguments.out / f"{model.name}.md", recipe(model)
        if arguments.check and (not path.is_file() or path.read_text(encoding="utf-8") != text):
            drifted.append(path.name)
        elif not arguments.check:
            path.write_text(text, encoding="utf-8")
    if drifted:
        sys.exit(f"not what models.py gives: {', '.join(drifted)}; run paper/recipes/make.py")


if __name__ == "__main__":
    main()
