"""Where else the figures of each step go: TensorBoard, Weights & Biases, Trackio. Each is imported where it is asked for.

log.jsonl is written in any case. Nothing leaves this machine unless that is asked for in the tracker's own words:

    tensorboard   event files in OUT/tensorboard
    wandb         offline in OUT/wandb, for `wandb sync`; with WANDB_MODE=online it sends as it goes
    trackio       its local database (TRACKIO_DIR says where); with TRACKIO_SPACE_ID its Space
"""

import contextlib
import importlib.util
import json
import os
import sys
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ropewalk.errors import DataError
from ropewalk.names import unknown
from ropewalk.record import write_json

PROJECT = "ropewalk"
FILE = "trackers.json"  # by which name the trackers know this run, and the last step that each was given
ID = 8  # digits that tell runs of one name apart
FIGURES = ("loss", "learning_rate", "gradient_norm", "tokens_per_second", "memory_gib", "of_peak")


class Tracker:
    """Does nothing with what it is told; the interface of the others."""

    def log(self, entry: dict[str, float]) -> None:
        """`entry` is a line of log.jsonl."""

    def close(self) -> None:
        """Everything told is kept."""


no_tracker = Tracker()


class _TensorBoard(Tracker):
    """Steps that a killed start had logged beyond its last save are purged from what TensorBoard shows."""

    def __init__(self, out: Path, name: str, settings: dict[str, Any], done: int):
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(out / "tensorboard"), purge_step=done + 1 if done else None)
        if not done:
            self._writer.add_text("settings", f"```\n{json.dumps(settings, indent=2, default=str)}\n```")

    def log(self, entry: dict[str, float]) -> None:
        for key, value in _figures(entry).items():
            self._writer.add_scalar(key, value, int(entry["step"]))
        self._writer.flush()  # what a kill would take would be missing after the save that the run goes on from

    def close(self) -> None:
        self._writer.close()


class _Wandb(Tracker):
    def __init__(self, out: Path, name: str, settings: dict[str, Any], done: int):
        import wandb  # pyright: ignore[reportMissingImports]  # an extra

        mode: Any = os.environ.get("WANDB_MODE", "offline")
        quiet = wandb.Settings(silent=True)
        try:
            self._run = wandb.init(
                project=os.environ.get("WANDB_PROJECT", PROJECT), name=name, id=name[-ID:], dir=str(out), config=settings,
                resume="allow" if mode == "online" else None, mode=mode, settings=quiet,
            )  # fmt: skip
        except wandb.Error as error:
            raise DataError(
                f"wandb does not begin: {error}\n"
                f"  WANDB_MODE is {mode}.\n"
                "  Log in with `wandb login`, or keep the run here: WANDB_MODE=offline."
            ) from error

    def log(self, entry: dict[str, float]) -> None:
        self._run.log(_figures(entry), step=int(entry["step"]))

    def close(self) -> None:
        self._run.finish()


class _Trackio(Tracker):
    def __init__(self, out: Path, name: str, settings: dict[str, Any], done: int):
        import trackio  # pyright: ignore[reportMissingImports]  # an extra

        self._trackio = trackio
        with contextlib.redirect_stdout(sys.stderr):  # standard output is for answers
            trackio.init(project=PROJECT, name=name, config=settings, resume="allow", embed=False)

    def log(self, entry: dict[str, float]) -> None:
        self._trackio.log(_figures(entry), step=int(entry["step"]))

    def close(self) -> None:
        with contextlib.redirect_stdout(sys.stderr):
            self._trackio.finish()


_KINDS: dict[str, type[_TensorBoard] | type[_Wandb] | type[_Trackio]] = {
    "tensorboard": _TensorBoard, "wandb": _Wandb, "trackio": _Trackio,
}  # fmt: skip
TRACKERS = tuple(_KINDS)
_PURGES = ("tensorboard",)  # of steps told twice, the later one counts


class _Each(Tracker):
    """All that were asked for. One that cannot take back a step is told no step again."""

    def __init__(self, trackers: dict[str, Tracker], told: dict[str, int]):
        self._trackers, self._told = trackers, told

    def log(self, entry: dict[str, float]) -> None:
        for name, tracker in self._trackers.items():
            if name in _PURGES or entry["step"] > self._told.get(name, 0):
                tracker.log(entry)

    def close(self) -> None:
        for tracker in self._trackers.values():
            tracker.close()


def known_trackers(names: Sequence[str]) -> tuple[str, ...]:
    """Each once. Raises DataError for a tracker that is not known, or whose library is not here."""
    for name in names:
        if name not in TRACKERS:
            raise DataError(unknown("tracker", name, TRACKERS))
        found = importlib.util.find_spec(name)
        if found is None or found.origin is None:  # a folder here that a tracker made counts as a package without files
            raise DataError(
                f"--track {name} needs the library {name}, which is not here.\n"
                "  log.jsonl has the same figures without it.\n"
                f"  Install it: pip install 'ropewalk[{name}]'; or leave --track out."
            )
    return tuple(dict.fromkeys(names))


@contextlib.contextmanager
def tracking(names: Sequence[str], out: Path, settings: dict[str, Any], *, done: int, logged: int) -> Iterator[Tracker]:
    """The trackers of these names, closed when the block ends, however it does.

    The run goes on after step `done`; `logged` is the last step that an earlier start had in its log. Every start is
    one and the same run to them.
    """
    if not names:
        yield no_tracker
        return
    known = _known(out)
    told = {name: max(step, logged) for name, step in known["told"].items()}
    write_json(out / FILE, {"name": known["name"], "told": dict.fromkeys(names, 0) | told})
    with contextlib.ExitStack() as stack:
        trackers: dict[str, Tracker] = {}
        for name in names:
            trackers[name] = _KINDS[name](out, known["name"], settings, done)
            stack.callback(trackers[name].close)
        yield _Each(trackers, told)


def _known(out: Path) -> dict[str, Any]:
    """What an earlier start wrote down, or what a first one does."""
    try:
        return json.loads((out / FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {"name": f"{out.resolve().name}-{uuid.uuid4().hex[:ID]}", "told": {}}


def _figures(entry: dict[str, float]) -> dict[str, float]:
    return {key: entry[key] for key in FIGURES if key in entry}
