"""The command line of the tables: a model, texts, windows, and how long to tune. The defaults are the pilot's."""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from study import Study

from ropewalk.arguments import token_list, tokens
from ropewalk.checkpoint.folder import PILOT, open_checkpoint
from ropewalk.errors import DataError, RopewalkError
from ropewalk.progress import TerminalProgress
from ropewalk.record import sha256_file, write_json

RESULTS = Path(__file__).parent / "results"
WORK = Path("build/paper")
SMALL_BATCH = 4096  # tokens a step of the pilot's arms; a larger model's are the recipe's
STEPS, EVERY = 240, 60
HASHED = 2**30  # bytes: weights of more are told by their sizes
DOCUMENTS = 6


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
    add("--batch-tokens", default=None, help="tokens a step (4096 for the pilot; else the recipe's)")
    add("--documents", type=int, default=DOCUMENTS, help="texts that are scored (%(default)s)")
    add("--seed", type=int, default=0)
    add("--work", type=Path, default=WORK, help="folder for arms and evaluations, shared by the tables (%(default)s)")
    add("--out", type=Path, default=RESULTS, help="folder for the table (%(default)s)")
    add("--quick", action="store_true", help="2 steps, 1 text: to see that it works, not what it finds")
    return parser


def study_of(given: argparse.Namespace) -> Study:
    """What the options say. `--quick` overrides how much is done, and works in a folder of its own."""
    window = open_checkpoint(given.model).window.target
    targets = tuple(sorted(token_list(given.windows) if given.windows else (4 * window, 8 * window)))
    small = given.model == PILOT or given.quick
    require_same_model(given.model, given.work / "quick" if given.quick else given.work)
    if given.quick:
        given.steps, given.every, given.documents, given.work = 2, 1, 2, given.work / "quick"
    return Study(
        model=given.model, data=tuple(given.data or [PILOT]), tune_on=tuple(given.tune_on), targets=targets,
        work=given.work, steps=given.steps, every=given.every, rate=given.learning_rate,
        batch_tokens=tokens(given.batch_tokens) if given.batch_tokens else SMALL_BATCH if small else None, documents=given.documents,
        truncate=(1 if given.quick else 2) * targets[-1], seed=given.seed, progress=TerminalProgress(Console()),
    )  # fmt: skip


def require_same_model(model: str, work: Path) -> None:
    """Writes down in `work` which weights its arms are made of. Raises DataError where it was begun with others.

    What is done there is not done again, so it would be another model's under this one's name.
    """
    checkpoint, path = open_checkpoint(model), work / "model.json"
    files = [checkpoint.folder / name for name in checkpoint.weight_files]
    small = sum(file.stat().st_size for file in files) < HASHED
    now = {file.name: sha256_file(file) if small else file.stat().st_size for file in files}
    if path.exists() and (before := json.loads(path.read_text(encoding="utf-8"))) != now:
        raise DataError(
            f"{work} was begun with other weights than those of {model}: {', '.join(sorted(before))} differ.\n"
            "  Its arms and evaluations are of that model, and would not be done again.\n"
            "  Give another --work, or remove this one."
        )
    work.mkdir(parents=True, exist_ok=True)
    write_json(path, now)


def run(main: Callable[[], object]) -> None:
    """Ends a script as Ropewalk's own verbs end: a mistake gets one message and exit code 2, Ctrl-C 130."""
    try:
        main()
    except RopewalkError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped; what was done is kept, and the same command goes on", file=sys.stderr)
        sys.exit(130)
