"""An evaluation that was begun before: what of it must be as it was, so that old pieces and new ones belong together."""

from pathlib import Path
from typing import Any

from ropewalk.checkpoint.output import folder_status
from ropewalk.errors import DataError
from ropewalk.record import Run, read_run


def begun_in(out: Path, inputs: list[dict[str, Any]]) -> Run | None:
    """The record that `out` was begun with, None if it was not. Raises DataError where its texts have changed."""
    if folder_status(out) in (None, "empty"):
        return None
    begun = read_run(out)
    if begun.inputs != inputs:
        changed = [one["path"] for one in begun.inputs if one not in inputs] or [one["path"] for one in inputs]
        raise DataError(
            f"the texts are not those that {out} was begun with: {', '.join(changed)}.\n"
            "  Its pieces and new ones would be of different texts.\n"
            "  Give the same files, or another --out."
        )
    return begun


def require_same(begun: Run, run: Run, out: Path) -> None:
    """Raises DataError where pieces made now would not be as those made before: other weights, device or code."""
    for what, before, now in (
        *((what, begun.resolved.get(what), run.resolved.get(what)) for what in ("documents", "weights", "engine")),
        *((key, begun.device[key], run.device[key]) for key in ("type", "name", "dtype")),
        *((name, begun.packages.get(name), run.packages.get(name)) for name in ("torch", "transformers", "lm_eval")),
    ):
        if before != now:
            raise DataError(
                f"{out} was begun with other {what}: {before!r:.200}, now {now!r:.200}.\n"
                "  Its pieces and new ones would not belong together.\n"
                "  Go on as it was begun, or start anew in another --out."
            )
