"""What each recipe takes of computing to reach the same perplexity, on the pilot lengthened four times by YaRN.

Every recipe tunes the same checkpoint on the same corpus for `--steps` steps of 4,096 tokens. Perplexity at the target
is measured on held-out modules after each tenth, quarter, half and whole of them, the passkey at the end. Leaves a
picture (perplexity against floating point operations), a table and the figures in `--out`. There is no goal: it is a
comparison of recipes, not of programs. What PoSE misses of full-length tuning's k_max is printed.
"""

import argparse
import json
import shutil
import sys
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
ARMS: dict[str, dict[str, Any]] = {
    "full length": {"recipe": "paper"},
    "PoSE": {"recipe": "pose"},
    "mixed windows": {"recipe": "mixed"},
    "LoRA+": {"recipe": "paper", "adapter": "lora+", "learning_rate": 2e-3},
}


def tuned(extended: Path, out: Path, name: str, steps: int) -> Path:
    folder = out / name.replace(" ", "-")
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


def measured(name: str, folder: Path, out: Path, steps: int) -> dict[str, Any]:
    shape = shape_of(json.loads((folder / "config.json").read_text()))
    each = flops(shape, ARMS[name])
    whole, reach, found = perplexity(folder, out, passkey=True)
    points = [(steps, whole)]
    if "adapter" not in ARMS[name]:
        marks = sorted({max(1, steps // 20) * max(1, part) for part in (1, 2, 5, 10)})
        for step in marks:
            points.append((step, perplexity(checkpoint_after(folder, step, out), out, passkey=False)[0]))
    trained = trained_numbers(shape, ARMS[name].get("adapter", "full"))
    return {
        "recipe": name, "trained": trained, "k_max": reach, "keys_found": found,
        "points": [{"step": step, "flops": step * each, "perplexity": value} for step, value in sorted(points)],
    }  # fmt: skip


def picture(arms: list[dict[str, Any]], start: float) -> str:
    xs = [point["flops"] for arm in arms for point in arm["points"]]
    ys = [point["perplexity"] for arm in arms for point in arm["points"]] + [start]
    lo, hi = min(xs) / 1.2, max(xs) * 1.1
    x = Axis("floating point operations", lo, hi, True, tuple(log_ticks(lo, hi)))
    y = Axis(f"perplexity at {TARGET} tokens", min(ys) / 1.03, max(ys) * 1.03, True, tuple(log_ticks(min(ys), max(ys))))
    lines = tuple(
        Line(arm["recipe"], tint, tuple(Mark(p["flops"], p["perplexity"]) for p in arm["points"]))
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
        arms.append(measured(name, tuned(extended, given.out, name, given.steps), given.out, given.steps))
        one = arms[-1]
        curve = ", ".join(f"{p['step']}: {p['perplexity']:.2f}" for p in one["points"])
        print(f"{name}: {one['points'][-1]['flops']:.2e} FLOPs, k_max {one['k_max']:g}, {one['keys_found']} keys; {curve}",
              flush=True)  # fmt: skip
    full, pose = arms[0], arms[1]
    print(f"PoSE misses {full['k_max'] - pose['k_max']:g} of full-length tuning's k_max of {full['k_max']:g}")
    (given.out / "recipes.json").write_text(json.dumps({"untuned": start, "arms": arms}, indent=1))
    (given.out / "recipes.svg").write_text(picture(arms, start))
    return 0


if __name__ == "__main__":
    sys.exit(main())
