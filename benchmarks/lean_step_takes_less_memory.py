"""A tuning step holds several times less memory a token than transformers' Trainer.

Peak resident memory of two whole steps (forward, backward, clipping, AdamW) beyond what the process held before the
first of them began, with weights, gradients and moments made. "ours" keeps a layer's input and attention's output, as
`ropewalk tune` does when a step would not fit otherwise; "ours_at_least" the input alone, its last resort. Each cell in a fresh process with the same allocator. A
line is fitted through rows of 1k, 2k, 4k and 8k tokens: its slope is what one more token takes. The longest row that
fits in 20 GiB follows from the line, and is checked by one run at 32k.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

LENGTHS = (1024, 2048, 4096, 8192)
FAR = 32768
GIB = 2**30
WAYS = ("ours", "ours_at_least", "trainer", "trainer_with_checkpointing")
GOALS = {(32000, "trainer"): 12, (32000, "trainer_with_checkpointing"): 10, (4096, "trainer"): 5,
         (4096, "trainer_with_checkpointing"): 2.5}  # fmt: skip


def resident(peak: bool = False) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:" if peak else "VmRSS:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/self/status does not tell the resident memory")


def cell(way: str, vocabulary: int, length: int, threads: int) -> None:
    """Prints the bytes beyond the baseline."""
    import warnings

    import torch
    from training import model_of, ours, theirs

    warnings.simplefilter("ignore")
    torch.set_num_threads(threads)
    model = model_of(vocabulary)
    runs = {
        "ours": lambda size, steps, at: ours(model, size, steps, at, keeps=["attention"] * 4),
        "ours_at_least": lambda size, steps, at: ours(model, size, steps, at, keeps=["input"] * 4),
        "trainer": lambda size, steps, at: theirs(model, size, steps, at, checkpointing=False),
        "trainer_with_checkpointing": lambda size, steps, at: theirs(model, size, steps, at, checkpointing=True),
    }
    with tempfile.TemporaryDirectory() as folder:
        runs[way](64, 1, Path(folder))  # imports, workspaces
        state = 3 * sum(p.numel() * p.element_size() for p in model.parameters())  # gradients and moments to come
        model.zero_grad(set_to_none=True)
        before = resident()
        Path("/proc/self/clear_refs").write_text("5")
        runs[way](length, 2, Path(folder))
        print(max(0, resident(peak=True) - before - state))


def measured(way: str, vocabulary: int, length: int, threads: int) -> int:
    command = [sys.executable, __file__, "--cell", way, str(vocabulary), str(length), "--threads", str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1])


def line(points: dict[int, int]) -> tuple[float, float]:
    """Slope and intercept by least squares."""
    slope, intercept = statistics.linear_regression(list(points), list(points.values()))
    return slope, intercept


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cell", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    if given.cell:
        way, vocabulary, length = given.cell
        cell(way, int(vocabulary), int(length), given.threads)
        return 0
    met = True
    for vocabulary, name in ((32000, "32k"), (4096, "4k")):
        slopes = {}
        for way in WAYS:
            points = {length: measured(way, vocabulary, length, given.threads) for length in LENGTHS}
            slope, intercept = slopes[way] = line(points)
            cells = ", ".join(f"{length}: {count / 2**20:.0f} MiB" for length, count in points.items())
            print(f"{way} at vocabulary {name}: {slope / 1024:.1f} KiB a token and {intercept / 2**20:.0f} MiB ({cells}); "
                  f"20 GiB hold {int((20 * GIB - intercept) / slope):,} tokens", flush=True)  # fmt: skip
        slope, intercept = slopes["ours"]
        far = measured("ours", vocabulary, FAR, given.threads)
        print(f"  ours at {FAR}: {far / 2**20:.0f} MiB, the line says {(slope * FAR + intercept) / 2**20:.0f} MiB")
        for way in WAYS[2:]:
            ratio, goal = slopes[way][0] / slope, GOALS[vocabulary, way]
            print(f"ratio {way}_memory_a_token_at_vocabulary_{name} {ratio:.2f} goal {goal:g}", flush=True)
            met &= ratio >= goal
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
