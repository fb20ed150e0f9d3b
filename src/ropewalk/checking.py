"""`ropewalk check`: how each serving runtime will read this checkpoint, and a repair of what can be repaired. No torch."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ropewalk.checkpoint.folder import Checkpoint, open_checkpoint, write_config
from ropewalk.checkpoint.layers import require_layers
from ropewalk.checkpoint.rope_blocks import text_section
from ropewalk.checkpoint.rope_config import disagreements
from ropewalk.checkpoint.rope_writing import written
from ropewalk.errors import CheckpointError, OutputError
from ropewalk.given import several
from ropewalk.rope.scalings import DynamicNtk
from ropewalk.rope.spec import RopeSpec, Window
from ropewalk.runtimes import Verdict, runtime_named
from ropewalk.runtimes import check as verdicts

_INSTEAD = "Make a folder of your own instead: ropewalk extend writes config.json in both schemas."


def check(model: str | Path, *, runtimes: Sequence[str] | None = None, fix: bool = False) -> list[Verdict]:
    """A verdict of each named runtime (None: of all): will it rotate, and reach, as this checkpoint's config means?

    Each is computed from what that runtime's version reads in config.json. `fix` first rewrites config.json in place
    where it says its rotation in one schema only. Raises RopewalkError for an unknown runtime, or a folder that cannot
    be repaired.

    >>> [verdict.outcome for verdict in check("pilot", runtimes=["transformers-4", "vllm"])]
    ['exact', 'exact']
    """
    runtimes = None if runtimes is None else several(runtimes)
    for name in runtimes or ():
        runtime_named(name)
    checkpoint = open_checkpoint(model)
    require_layers(checkpoint)
    if fix:
        repair(checkpoint)
        checkpoint = open_checkpoint(model)
    return verdicts(text_section(checkpoint.config), meant(checkpoint.rope), runtimes)


def repair(checkpoint: Checkpoint) -> bool:
    """Writes config.json anew in both schemas, if it is not so already; tells whether it was written.

    Raises OutputError when the file is a link, as in a hub cache: what it points to may belong to others.
    Raises CheckpointError when the two schemas disagree: which of them is meant is not for us to guess.
    """
    if said_twice := disagreements(checkpoint.config):
        raise CheckpointError(
            f"{checkpoint.folder / 'config.json'} says two things, and which is meant cannot be told from it.\n"
            + "".join(f"  {sentence}\n" for sentence in said_twice)
            + "  Remove the wrong one, then --fix."
        )
    repaired = written(checkpoint.config, checkpoint.rope)
    if repaired == checkpoint.config:
        return False
    path = checkpoint.folder / "config.json"
    if path.is_symlink() or path.stat().st_nlink > 1:
        raise OutputError(
            f"{path} is a link, and what it points to may be in use elsewhere (a hub cache is made of links).\n"
            f"  {_INSTEAD}"
        )
    try:
        write_config(path, repaired)
    except OutputError as error:
        raise OutputError(f"{error}\n  --fix writes it in place, and it stays as it was.\n  {_INSTEAD}") from error
    return True


def meant(rope: RopeSpec) -> RopeSpec:
    """What a checkpoint is to be served at. A dynamic scaling declares its original window and a factor to go beyond."""
    if isinstance(rope.scaling, DynamicNtk):
        original = rope.window.original
        return replace(rope, window=Window(original, round(original * rope.scaling.factor)))
    return rope
