"""What a model folder is, told by the record in it: base or extended, by which method, tuned or not."""

from typing import Any

from ropewalk.checkpoint.folder import Checkpoint
from ropewalk.checkpoint.values import is_number
from ropewalk.errors import RecordError
from ropewalk.record import Run, read_run
from ropewalk.rope.spec import RopeSpec

# config.json shows the windows of these methods as if pretrained; the record tells
UNSCALED_METHODS = ("none", "ntk", "abf", "freeze", "interpolate-table")
UNTUNED: dict[str, Any] = {"tuned": False, "tuning_steps": None, "tuning_tokens": None, "learning_rate": None}


def subject_of(checkpoint: Checkpoint) -> dict[str, Any]:
    """Name, method, windows and tuning of a checkpoint, for the records of what is done with it.

    `original` and `theta` are those of the base, before any method; theta None where an older record
    cannot tell it, and for a model that does not rotate. The
    name is that of the base model, handed on from record to record. A folder that ropewalk did not make is a base.
    """
    window = checkpoint.window
    subject = {
        "name": checkpoint.name,
        "method": None,
        "original": window.original,
        "theta": None if checkpoint.table else checkpoint.rope.theta,
        "target": None,
        **UNTUNED,
    }
    try:
        earlier = read_run(checkpoint.folder)
    except RecordError:
        earlier = None
    if earlier is not None and earlier.command in ("extend", "tune"):
        told = earlier.resolved.get("subject") if isinstance(earlier.resolved, dict) else None
        if not isinstance(told, dict) or not _says_whose(told):
            raise RecordError(
                f"the record in {checkpoint.folder} does not say whose it is.\n"
                "  Its subject has a name, and the window and theta of its base.\n"
                "  Make the folder again, or remove its run.json: it then counts as a base model."
            )
        subject |= told
        if told.get("theta") is None and checkpoint.table is None:
            subject["theta"] = _theta_of_base(checkpoint.rope, earlier, subject["original"])
    return subject | {"window": window.target, "model": str(checkpoint.folder)}


def _says_whose(told: dict[str, Any]) -> bool:
    numbers = (told.get(key) for key in ("original", "theta"))
    texts = (told.get(key) for key in ("name", "method"))
    return all(n is None or is_number(n) for n in numbers) and all(isinstance(t, str | None) for t in texts)


def _theta_of_base(rope: RopeSpec, run: Run, original: float) -> float | None:
    """Theta of a rotation that is known to lie over the base's own window; None if there is none.

    Methods that raise theta leave a window that looks pretrained, and longer than the base's.
    """
    if rope.window.original == original:
        return rope.theta
    match run.ropes:
        case {"before": {"full_attention": {"original_window": window, "theta": int() | float() as theta}}} if (
            window == original
        ):
            return float(theta)
    return None
