"""Every figure and table of the paper at pilot scale, and one page with all of it: what `make paper` runs.

The stages are done in order, each timed. Ctrl-C stops after a tuning step; the same command goes on from there, and what is
done is not done again. Arms, evaluations and parts of the page lie in --work, the page and its numbers in --out.

    python paper/make.py                     every stage, then paper/results/index.html
    python paper/make.py --only table4       some of them
    python paper/make.py --quick             a few steps of everything: whether it works, not what it finds

The scripts run one by one too, with models and texts of your own: each says how with --help.
"""

import argparse
import importlib
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from options import OUT_HELP, WORK, folder, folder_of_output, require_same_model, run
from page import subject_of, write_page
from times import Times

from ropewalk.arguments import token_list
from ropewalk.errors import DataError
from ropewalk.names import unknown


@dataclass(frozen=True)
class Stage:
    """One script with what it is given, and the part of the page that it leaves. `quick` is given in a quick run."""

    part: str
    module: str
    given: tuple[str, ...] = ()
    quick: tuple[str, ...] = ("--quick",)
    of_study: bool = True  # takes --work, --model, --windows


STAGES = (
    Stage("figure2", "figure2", ("--seeds", "20"), ("--seeds", "2"), of_study=False),
    Stage("figure5", "figure5", (), (), of_study=False),
    Stage("heads", "figure_heads", (), ("--pairs", "8"), of_study=False),
    Stage("looseness", "looseness", (), ("--pairs", "8"), of_study=False),
    Stage("table1", "table1"),
    Stage("table2", "table2"),
    Stage("table3", "table3"),
    Stage("table4", "table4"),
    Stage("table5", "table5"),
    Stage("table6", "table6"),
    Stage("methods", "methods"),
    Stage("direct", "direct"),
    Stage(
        "search", "search", ("--budget", "40", "--windows", "2"), ("--budget", "12", "--windows", "1"), of_study=False
    ),
)


def stages_of(given: argparse.Namespace) -> list[Stage]:
    """All, or those that --only names. Raises DataError for one that is none."""
    names = [stage.part for stage in STAGES]
    for name in given.only or ():
        if name not in names:
            raise DataError(unknown("stage", name, names))
    return [stage for stage in STAGES if stage.part in (given.only or names)]


def arguments_of(stage: Stage, given: argparse.Namespace, parts: Path) -> list[str]:
    """The script's command line."""
    said = [*(stage.quick if given.quick else stage.given), "--out", str(parts)]
    if stage.of_study:
        said += ["--work", str(given.work)]
        said += ["--windows", given.windows] if given.windows else []
    if stage.part == "search" and given.windows:  # else it takes the longest of the tables by itself
        said += ["--to", str(max(token_list(given.windows)))]
    if stage.part not in ("figure2", "figure5"):  # those two have no model
        said += ["--model", given.model]
    return said


def do(stages: Sequence[Stage], given: argparse.Namespace, parts: Path) -> Times:
    """Every stage that is not done, in order."""
    times = Times.of(parts / "stages.json", given.work)
    for number, stage in enumerate(stages, 1):
        said, head = arguments_of(stage, given, parts), f"[{number}/{len(stages)}] {stage.part}"
        if is_there(stage, given, parts, times):
            print(f"{head}: done before, {times.known[stage.part]['seconds']:.0f} s", flush=True)
            continue
        print(f"{head} ...", flush=True)
        times.begin(stage.part, said)
        began, done = time.perf_counter(), False
        try:
            importlib.import_module(stage.module).main(said)
            done = True
        finally:
            times.end(stage.part, time.perf_counter() - began, done=done)
        print(f"{head}: {time.perf_counter() - began:.0f} s", flush=True)
    return times


def is_there(stage: Stage, given: argparse.Namespace, parts: Path, times: Times) -> bool:
    """Whether the stage was done with these arguments, and its part still lies there."""
    return times.is_done(stage.part, arguments_of(stage, given, parts)) and (parts / f"{stage.part}.json").exists()


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="pilot", help="folder, hub id or pilot (%(default)s)")
    parser.add_argument("--windows", default=None, help="targets in tokens (4 and 8 times the model's window)")
    parser.add_argument("--work", type=Path, default=WORK, help="folder of the work (%(default)s)")
    parser.add_argument("--out", type=Path, default=None, help=OUT_HELP)
    parser.add_argument("--only", nargs="+", default=None, help=f"of {', '.join(stage.part for stage in STAGES)}")
    parser.add_argument("--quick", action="store_true", help="2 steps an arm, a text or two")
    given = parser.parse_args(arguments)
    stages = stages_of(given)
    out = folder_of_output(given)
    require_same_model(given.model, given.work / "quick" if given.quick else given.work)
    parts = folder(given.work / ("quick-parts" if given.quick else "parts"), "--work")
    times = do(stages, given, parts)
    names = [stage.part for stage in STAGES if is_there(stage, given, parts, times)]
    for name in names:
        shutil.copyfile(parts / f"{name}.json", out / f"{name}.json")
    total = sum(times.known[name]["seconds"] for name in names)
    missing = [stage.part for stage in STAGES if stage.part not in names]
    page = write_page(
        parts, names, times.known, out, subject=subject_of(given.model), missing=missing, quick=given.quick
    )
    print(f"{page}: {len(names)} parts, {total / 60:.1f} minutes in all")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    run(main)
