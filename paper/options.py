"""The command line of the tables: a model, texts, windows, and how long to tune. The defaults are the pilot's."""

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from study import Study

from ropewalk.arguments import token_list, tokens
from ropewalk.checkpoint.folder import PILOT, open_checkpoint
from ropewalk.errors import DataError, OutputError, RecordError, RopewalkError
from ropewalk.progress import TerminalProgress
from ropewalk.record import sha256_file, write_json

RESULTS = Path(__file__).parent / "results"
WORK = Path("build/paper")
SMALL, SMALL_BATCH = 10**8, 4096  # parameters, and tokens a step below: of the pilot and its like. Else the recipe's
STEPS, EVERY = 240, 60
HASHED = 2**30  # bytes: weights of more are told by their sizes
DOCUMENTS = 6
OUT_HELP = "folder for what is found (paper/results; of a quick run, quick-results in --work)"


def table_options(description: str | None) -> argparse.ArgumentParser:
    """What every table takes. Its --help is the script's own account of itself."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--model", default=PILOT, help="folder, hub id or pilot (%(default)s)")
    add("--data", nargs="+", default=None, help="texts to measure on, as for `ropewalk evaluate` (the pilot's own)")
    add("--tune-on", nargs="+", default=[PILOT], help="texts to tune on, as for `ropewalk tune` (the pilot's corpus)")
    add("--windows", default=None, help="targets in tokens, such as 8k,16k (4 and 8 times the window)")
    add("--steps", type=int, default=STEPS, help="tuning steps of an arm (%(default)s; the paper's 1000)")
    add("--every", type=int, default=EVERY, help="steps from one look at an arm to the next (%(default)s)")
    add("--learning-rate", type=float, default=None, help="of every arm (the recipe's for the model's size)")
    add("--batch-tokens", default=None, help="tokens a step (4096 below 100 M parameters; else the recipe's)")
    add("--documents", type=int, default=DOCUMENTS, help="texts that are scored (%(default)s)")
    add("--seed", type=int, default=0)
    add("--work", type=Path, default=WORK, help="folder for arms and evaluations, shared by the tables (%(default)s)")
    add("--out", type=Path, default=None, help=OUT_HELP)
    add("--quick", action="store_true", help="2 steps, 2 texts: to see that it works, not what it finds")
    return parser


def study_of(given: argparse.Namespace) -> Study:
    """What the options say. `--quick` overrides how much is done, and works in a folder of its own.

    Raises DataError for counts below 1 and OutputError for folders that cannot be had.
    """
    require_counts(given, "steps", "every", "documents")
    given.out = folder_of_output(given)
    base = open_checkpoint(given.model)
    window = base.window.target
    targets = tuple(sorted(token_list(given.windows) if given.windows else (4 * window, 8 * window)))
    small = base.parameters < SMALL or given.quick
    require_same_model(given.model, given.work / "quick" if given.quick else given.work)
    if given.quick:
        given.steps, given.every, given.documents, given.work = 2, 1, 2, given.work / "quick"
    return Study(
        model=given.model, data=tuple(given.data or [PILOT]), tune_on=tuple(given.tune_on), targets=targets,
        work=given.work, steps=given.steps, every=given.every, rate=given.learning_rate,
        batch_tokens=tokens(given.batch_tokens) if given.batch_tokens else SMALL_BATCH if small else None, documents=given.documents,
        truncate=(1 if given.quick else 2) * targets[-1], seed=given.seed, progress=TerminalProgress(Console()),
    )  # fmt: skip


def require_counts(given: argparse.Namespace, *names: str) -> None:
    """Raises DataError for an option that counts something and is below 1."""
    for name in names:
        if getattr(given, name) < 1:
            raise DataError(
                f"--{name.replace('_', '-')} is {getattr(given, name)}.\n"
                "  Expected a whole number from 1: it counts what is done.\n"
                "  Give another, or leave it out."
            )


def folder_of_output(given: argparse.Namespace) -> Path:
    """The folder of --out, made. A quick run's numbers mean nothing, so they do not go where the others lie."""
    return folder(output_place(given), "--out")


def output_place(given: argparse.Namespace) -> Path:
    return given.out or (given.work / "quick-results" if given.quick else RESULTS)


def folder(path: Path, option: str) -> Path:
    """The folder, made before anything is computed for it. Raises OutputError where it cannot be had or written to."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        why = None if os.access(path, os.W_OK | os.X_OK) else "no permission to write there"
    except OSError as error:
        why = error.strerror
    if why:
        raise OutputError(
            f"{path} cannot be the folder of {option}: {why}.\n"
            "  Expected a folder, or a place where one can be made.\n"
            f"  Give another {option}."
        )
    return path


def state_of(path: Path, kinds: tuple[type, ...] = (object,), option: str = "--work") -> dict[str, Any]:
    """What a json file that these scripts wrote holds, values of `kinds` by name; nothing where it is not there.

    Raises RecordError for one that is damaged. `option` is what leads to it.
    """
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        found, what = None, f"no JSON ({error})"
    else:
        what = "not of its kind"
    if not isinstance(found, dict) or not all(isinstance(value, kinds) for value in found.values()):
        raise RecordError(
            f"{path} is {what}.\n"
            "  Expected what these scripts wrote there, as they wrote it.\n"
            f"  Give another {option}; or remove the file, if you know that what lies beside it is right."
        )
    return found


def require_same_model(model: str, work: Path) -> None:
    """Writes down in `work` which weights its arms are made of. Raises DataError where it was begun with others.

    What is done there is not done again, so it would be another model's under this one's name.
    """
    checkpoint, path = open_checkpoint(model), folder(work, "--work") / "model.json"
    files = [checkpoint.folder / name for name in checkpoint.weight_files]
    small = sum(file.stat().st_size for file in files) < HASHED
    now = {file.name: sha256_file(file) if small else file.stat().st_size for file in files}
    before = state_of(path, (str, int))
    if before and before != now:
        raise DataError(
            f"{work} was begun with other weights than those of {model}: {', '.join(sorted(before))} differ.\n"
            "  Its arms and evaluations are of that model, and would not be done again.\n"
            "  Give another --work, or remove this one."
        )
    write_json(path, now)


def run(main: Callable[[], object]) -> None:
    """Ends a script as Ropewalk's own verbs end: a mistake gets one message and exit code 2, Ctrl-C 130."""
    try:
        main()
    except RopewalkError as error:
        print(f"{type(error).__name__}: {in_these_options(str(error))}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        where = error.filename or "a file"
        print(
            f"OutputError: {where} cannot be read or written: {error.strerror or error}.\n"
            "  Expected to write below --work and --out, and to read what lies there.\n"
            "  Make room or give another folder; what was done is kept, and the same command goes on.",
            file=sys.stderr,
        )
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped; what was done is kept, and the same command goes on", file=sys.stderr)
        sys.exit(130)


def in_these_options(message: str) -> str:
    """A verb's message about its own --out, which here is a folder below --work."""
    return message.replace("--out", "--work") if "was begun with other arguments" in message else message
