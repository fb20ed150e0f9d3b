"""Hours of use: `python -m tests.faults.soak --out DIR` (`make soak`), one hour of each of two loops, side by side.

The first is one process that lengthens the pilot, tunes it, evaluates it and draws its report, again and again: its
memory must stay flat, its open files constant, and every round must give the same numbers. The second starts the same
work as commands of their own and kills each with SIGKILL at a random moment until it gets through with `--resume`: what
comes out must equal what an undisturbed run makes, to the last bit. DIR gets `steady.jsonl`, `killed.jsonl`,
`soak.json` with the figures and `soak.svg` with the picture.
"""

import argparse
import ctypes
import gc
import hashlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

TARGET, STEPS = 512, 4
TUNING = {"steps": STEPS, "batch_tokens": 2 * TARGET, "save_every": 1, "keep_saves": 2}
MEASURING = {"tasks": ("perplexity", "passkey"), "lengths": (256, TARGET), "max_tokens": 2048, "truncate_tokens": 1024}
WARM_UP = 0.25  # of the time: allocators and caches fill
LEAK = 0.01  # of memory an hour


def round_of_work(folder: Path) -> str:
    """Extend, tune, evaluate, report in one process; the digest of weights and results."""
    import ropewalk

    ropewalk.extend("pilot", to=TARGET, out=folder / "long")
    ropewalk.tune(folder / "long", out=folder / "tuned", **TUNING)
    ropewalk.evaluate(folder / "tuned", out=folder / "measured", **MEASURING)
    ropewalk.report([folder / "measured"], out=folder / "page.html")
    return digest(folder)


def digest(folder: Path) -> str:
    """Of the tuned weights and of every result, times aside."""
    sum_of = hashlib.sha256((folder / "tuned" / "model.safetensors").read_bytes())
    for part in ("tuned", "measured"):
        results = json.loads((folder / part / "run.json").read_text())["results"]
        timed = [row for row in results if "second" not in row["metric"]]
        sum_of.update(json.dumps([[row["name"], row["length"], row["metric"], row["value"]] for row in timed]).encode())
    return sum_of.hexdigest()


def commands(folder: Path) -> list[list[str]]:
    """The same work as commands, each of which may be started again."""
    tuning = [f"--{name.replace('_', '-')}={value}" for name, value in TUNING.items()]
    measuring = [
        f"--{name.replace('_', '-')}={','.join(map(str, value)) if isinstance(value, tuple) else value}"
        for name, value in MEASURING.items()
    ]
    here = {name: str(folder / name) for name in ("long", "tuned", "measured")}
    return [
        ["extend", "pilot", "--to", str(TARGET), "--out", here["long"]],
        ["tune", here["long"], "--out", here["tuned"], "--resume", *tuning],
        ["evaluate", here["tuned"], "--out", here["measured"], "--resume", *measuring],
        ["report", here["measured"], "--out", str(folder / "page.html")],
    ]


def steady(out: Path, seconds: float) -> None:
    """One process; a line a round."""
    began = time.time()
    with (out / "steady.jsonl").open("a", encoding="utf-8") as log:
        while time.time() - began < seconds:
            folder = out / "steady"
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            made = round_of_work(folder)
            line = {"seconds": round(time.time() - began), "digest": made, "mib": resident(), "files": open_files()}
            print(json.dumps(line), file=log, flush=True)


def resident() -> float:
    """MiB that this process holds, pages of files aside, and what it has given back to the allocator."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def killed(out: Path, seconds: float, seed: int) -> None:
    """Commands that are killed; a line for each round that got through."""
    began, rng = time.time(), random.Random(seed)
    usual: dict[str, float] = {}  # seconds that a verb took when it was let be
    with (out / "killed.jsonl").open("a", encoding="utf-8") as log:
        while time.time() - began < seconds:
            folder = out / "killed"
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            kills = sum(_got_through(command, folder, usual, rng) for command in commands(folder))
            left = sorted(p.name for p in folder.iterdir() if p.name not in ("long", "tuned", "measured", "page.html"))
            line = {"seconds": round(time.time() - began), "digest": digest(folder), "kills": kills, "left": left}
            print(json.dumps(line), file=log, flush=True)


def _got_through(command: list[str], folder: Path, usual: dict[str, float], rng: random.Random, most: int = 6) -> int:
    """Runs one command until it ends by itself; how often it was killed. Anything but success and kills raises."""
    verb, kills = command[0], 0
    while True:
        began = time.time()
        process = subprocess.Popen(
            [sys.executable, "-m", "ropewalk", *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        wait = rng.uniform(0, usual[verb]) if verb in usual and kills < most else None
        try:
            _, said = process.communicate(timeout=wait)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            kills += process.returncode == -signal.SIGKILL
            if _is_whole(verb, folder):  # it had just ended its work; what it made was whole
                return kills
            continue
        if process.returncode != 0:
            raise RuntimeError(f"{verb} ended with {process.returncode} after {kills} kills:\n{said}")
        usual.setdefault(verb, time.time() - began)
        return kills


def _is_whole(verb: str, folder: Path) -> bool:
    """`extend` and `report` have no --resume: what they made is there or it is not."""
    made = {"extend": folder / "long", "report": folder / "page.html"}
    return verb in made and made[verb].exists()


def figures(out: Path) -> dict[str, Any]:
    """What both logs say; raises AssertionError where something was lost."""
    rounds, storms = (
        [json.loads(line) for line in (out / f"{name}.jsonl").read_text().splitlines()] for name in ("steady", "killed")
    )
    digests = {line["digest"] for line in (*rounds, *storms)}
    late = [line for line in rounds if line["seconds"] >= WARM_UP * rounds[-1]["seconds"]]
    hours, mib = (np.array([line[key] for line in late], float) for key in ("seconds", "mib"))
    (slope, _), spread = np.polyfit(hours / 3600, mib, 1, cov=True)
    return {
        "hours": round(rounds[-1]["seconds"] / 3600, 2),
        "rounds": len(rounds),
        "mib": round(float(np.median(mib)), 1),
        "leak_per_hour": round(float(slope / np.median(mib)), 5),
        "leak_error": round(float(spread[0, 0] ** 0.5 / np.median(mib)), 5),
        "open_files": sorted({line["files"] for line in late}),
        "kill_hours": round(storms[-1]["seconds"] / 3600, 2),
        "kills": sum(line["kills"] for line in storms),
        "rounds_under_kills": len(storms),
        "left_beside": sorted({name for line in storms for name in line["left"]}),
        "different_results": len(digests),
    }


def drawn(out: Path) -> None:
    from ropewalk.reports.lines import Axis, Chart, Line, Mark, line_chart
    from ropewalk.reports.standalone import ALONE, standalone
    from ropewalk.reports.svg import linear_ticks

    rounds = [json.loads(line) for line in (out / "steady.jsonl").read_text().splitlines()]
    minutes, mib = [line["seconds"] / 60 for line in rounds], [line["mib"] for line in rounds]
    marks = tuple(Mark(x, y) for x, y in zip(minutes, mib, strict=True))
    top, end = max(mib) * 1.1, max(minutes)
    x = Axis("minutes", 0, end, False, tuple(linear_ticks(0, end, 6)))
    y = Axis("memory after each round, MiB", 0, top, False, tuple(linear_ticks(0, top, 5)))
    summary = f"Memory of one process over {end:.0f} minutes of rounds: {min(mib):.0f} to {max(mib):.0f} MiB."
    chart = Chart((Line("memory", 1, marks, dots=False),), x, y, (), summary)
    (out / "soak.svg").write_text(standalone(line_chart(chart, ALONE)), encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for logs, figures and the picture")
    parser.add_argument("--minutes", type=float, default=60, help="of each loop (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills (%(default)s)")
    given = parser.parse_args(arguments)
    given.out.mkdir(parents=True, exist_ok=True)
    start = multiprocessing.get_context("spawn").Process
    loops = [
        start(target=steady, args=(given.out, 60 * given.minutes)),
        start(target=killed, args=(given.out, 60 * given.minutes, given.seed)),
    ]
    for loop in loops:
        loop.start()
    for loop in loops:
        loop.join()
    if any(loop.exitcode for loop in loops):
        return 1
    told = figures(given.out)
    (given.out / "soak.json").write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    drawn(given.out)
    print(json.dumps(told))
    same = told["different_results"] == 1 and not told["left_beside"] and len(told["open_files"]) == 1
    return 0 if same and told["leak_per_hour"] <= LEAK else 1


if __name__ == "__main__":
    sys.exit(main())
