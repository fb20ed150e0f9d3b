"""What each recipe takes of computing to reach the same perplexity, on the pilot lengthened four times.

Every recipe tunes the same checkpoint on the same corpus for `--steps` steps of 4,096 tokens. Perplexity at the target
is measured on held-out modules after a twentieth, a tenth, a quarter, half and the whole of them, the passkey at the end. Leaves a
picture (perplexity against floating point operations) and the figures in `--out`. There is no goal: it is a
comparison of recipes, not of programs. Printed: what each takes to the lowest perplexity that all of them reach, and what PoSE
misses of full-length tuning's k_max.
"""

import argparse
import json
import math
import shutil
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

import ropewalk
from ropewalk.checkpoint.folder import open_checkpoint
from ropewalk.planning.memory import trained_numbers
from ropewalk.planning.shapes import Shape, shape_of
from ropewalk.planning.work import work_of
from ropewalk.reports.lines import Axis, Chart, Line, Mark, line_chart
from ropewalk.reports.standalone import ALONE, standalone
from ropewalk.reports.svg import log_ticks
from ropewalk.train.state import saves

TARGET, ORIGINAL, BATCH = 1024, 256, 4096
TERA = 1e12
ARMS: dict[str, dict[str, Any]] = {
    "full length": {"recipe": "paper"},
    "PoSE": {"recipe": "pose"},
    "mixed windows": {"recipe": "mixed"},
    "LoRA+": {"recipe": "paper", "adapter": "lora+", "learning_rate": 2e-3},
}


def tuned(extended: Path, out: Path, name: str, steps: int, suffix: str = "") -> Path:
    folder = out / (name.replace(" ", "-") + suffix)
    options = {"learning_rate": 1e-3} | ARMS[name]
    every = max(1, steps // 20)
    ropewalk.tune(
        extended, out=folder, steps=steps, batch_tokens=BATCH, save_every=every, keep_saves=30, resume=True, **options
    )
    return folder


def checkpoint_after(folder: Path, step: int, out: Path) -> Path:
    """The tuned folder with the weights of a save in place of the last ones; only for arms that train every weight."""
    place = out / f"{folder.name}-{step}"
    if not place.exists():
        shutil.copytree(folder, place, ignore=shutil.ignore_patterns("saves", "trained_on.json"))
        (save,) = [save for save in saves(folder) if save.step == step]
        shutil.copy(save.folder / "model.safetensors", place / "model.safetensors")
    return place


def perplexity(folder: Path, out: Path, *, passkey: bool) -> tuple[float, float | None, int]:
    """At the target: perplexity, k_max and keys found of all (None and 0 unless asked for)."""
    tasks = ["perplexity", "passkey"] if passkey else ["perplexity"]
    run = ropewalk.evaluate(
        folder, out=out / f"eval-{folder.name}", lengths=[TARGET], tasks=tasks, max_tokens=16384, resume=True
    )
    rows = {(row.metric, row.length): row for row in run.results}
    reach = next((row.value for row in run.results if row.metric == "k_max"), None)
    found = [row for row in run.results if row.metric == "accuracy"]
    return rows["perplexity", TARGET].value, reach, round(sum((row.value or 0) * row.count for row in found))


def flops(shape: Shape, arm: dict[str, Any]) -> float:
    """Of one step, what the recipe's rows take; nothing is computed twice at this size."""
    adapter = arm.get("adapter", "full")
    if arm["recipe"] == "mixed":
        halves = [(TARGET, BATCH / 2), (ORIGINAL, BATCH / 2)]
    else:
        length = ORIGINAL if arm["recipe"] == "pose" else TARGET
        halves = [(length, BATCH)]
    return sum(tokens / length * work_of(shape, length, "none", adapter).total for length, tokens in halves)


def after(extended: Path, folder: Path, name: str, step: int, out: Path) -> Path:
    """The checkpoint after so many steps: of a save; of an adapter, which saves hold apart from the weights, of a run of its own."""
    if "adapter" in ARMS[name]:
        return tuned(extended, out, name, step, f"-{step}")
    return checkpoint_after(folder, step, out)


def measured(name: str, extended: Path, out: Path, steps: int) -> dict[str, Any]:
    folder = tuned(extended, out, name, steps)
    shape = shape_of(json.loads((folder / "config.json").read_text()))
    each = flops(shape, ARMS[name])
    whole, reach, found = perplexity(folder, out, passkey=True)
    points = [(steps, whole)]
    for step in sorted({max(1, steps // 20) * part for part in (1, 2, 5, 10)} - {steps}):
        points.append((step, perplexity(after(extended, folder, name, step, out), out, passkey=False)[0]))
    trained = trained_numbers(shape, ARMS[name].get("adapter", "full"))
    return {
        "recipe": name, "trained": trained, "k_max": reach, "keys_found": found,
        "points": [{"step": step, "flops": step * each, "perplexity": value} for step, value in sorted(points)],
    }  # fmt: skip


def flops_to(level: float, points: list[tuple[float, float]]) -> float:
    """Where a curve of (operations, perplexity) first comes down to `level`, between points by the logarithm of perplexity.

    >>> flops_to(10.0, [(0.0, 40.0), (2e12, 20.0), (4e12, 5.0)])
    3000000000000.0
    """
    for (done, above), (more, value) in pairwise(points):
        if value <= level:
            part = 0.0 if above <= level else math.log(above / level) / math.log(above / value)
            return done + part * (more - done)
    return math.inf


def picture(arms: list[dict[str, Any]], start: float) -> str:
    xs = [point["flops"] / TERA for arm in arms for point in arm["points"]]
    ys = [point["perplexity"] for arm in arms for point in arm["points"]] + [start]
    lo, hi = min(xs) / 1.2, max(xs) * 1.1
    x = Axis("floating point operations, 10^12", lo, hi, True, tuple(log_ticks(lo, hi)))
    y = Axis(f"perplexity at {TARGET} tokens", min(ys) / 1.03, max(ys) * 1.03, True, tuple(log_ticks(min(ys), max(ys))))
    lines = tuple(
        Line(arm["recipe"], tint, tuple(Mark(p["flops"] / TERA, p["perplexity"]) for p in arm["points"]))
        for tint, arm in enumerate(arms)
    )
    summary = "Perplexity against computing. " + " ".join(
        f"{arm['recipe']}: {arm['points'][-1]['perplexity']:.2f} after {arm['points'][-1]['flops']:.3g}."
        for arm in arms
    )
    return standalone(line_chart(Chart(lines, x, y, (), summary), ALONE))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--method", default="yarn")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    extended = given.out / "extended"
    if not extended.exists():
        ropewalk.extend("pilot", to=TARGET, method=given.method, out=extended)
    start, reach, found = perplexity(extended, given.out, passkey=True)
    base = perplexity(open_checkpoint("pilot").folder, given.out, passkey=False)[0]
    print(f"base, beyond its window: {base:.2f} at {TARGET}")
    print(f"{given.method}, untuned: {start:.2f} at {TARGET}, k_max {reach:g}, {found} keys", flush=True)
    arms = []
    for name in ARMS:
        arms.append(measured(name, extended, given.out, given.steps))
        one = arms[-1]
        curve = ", ".join(f"{p['step']}: {p['perplexity']:.2f}" for p in one["points"])
        print(f"{name}: {one['points'][-1]['flops']:.2e} FLOPs, k_max {one['k_max']:g}, {one['keys_found']} keys; {curve}",
              flush=True)  # fmt: skip
    level = max(min(point["perplexity"] for point in arm["points"]) for arm in arms)
    for arm in arms:
        arm["flops_to_level"] = flops_to(level, [(0.0, start), *((p["flops"], p["perplexity"]) for p in arm["points"])])
        print(f"{arm['recipe']} to {level:.2f}: {arm['flops_to_level']:.2e} FLOPs")
    full, pose = arms[0], arms[1]
    print(f"PoSE misses {full['k_max'] - pose['k_max']:g} of full-length tuning's k_max of {full['k_max']:g}")
    (given.out / "recipes.json").write_text(
        json.dumps({"base": base, "untuned": start, "level": level, "arms": arms}, indent=1)
    )
    (given.out / "recipes.svg").write_text(picture(arms, start))
    return 0


if __name__ == "__main__":
    sys.exit(main())
