"""`ropewalk extend`: a checkpoint in, the same checkpoint with a longer window out, in a second."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ropewalk.checkpoint.card import CARD, card
from ropewalk.checkpoint.folder import INDEX, Checkpoint, copy_companions, link_or_copy, open_checkpoint
from ropewalk.checkpoint.output import require_new, whole_folder
from ropewalk.checkpoint.rope_config import written
from ropewalk.checkpoint.subject import subject_of
from ropewalk.errors import RopeError
from ropewalk.progress import Progress, silent
from ropewalk.record import Run, input_file, write_json
from ropewalk.rope.methods import method_named
from ropewalk.rope.spec import RopeSpec


@dataclass(frozen=True)
class Extension:
    """What an extension changes, before anything is written."""

    checkpoint: Checkpoint
    method: str
    before: RopeSpec
    after: RopeSpec

    @property
    def config(self) -> dict[str, Any]:
        return written(self.checkpoint.config, self.after)


def planned_extension(model: str | Path, to: int, method: str = "pi") -> Extension:
    """The extension of `model` to `to` tokens. Raises RopewalkError when it cannot be."""
    rescale = method_named(method)
    checkpoint = open_checkpoint(model)
    made_by = subject_of(checkpoint)["method"]
    if made_by in ("none", "ntk"):  # nothing in config.json tells such a window from a pretrained one; the record does
        raise RopeError(
            f"cannot apply {method}: this checkpoint's window was already lengthened by {made_by}.\n"
            f"  Its run.json in {checkpoint.folder} says so; its config.json alone would give a wrong stretch.\n"
            "  Start from the base checkpoint."
        )
    return Extension(checkpoint, method, checkpoint.rope, rescale(checkpoint.rope, to))


def extend(model: str | Path, *, to: int, out: str | Path, method: str = "pi", progress: Progress = silent) -> Run:
    """Writes `model` with a window of `to` tokens into the new folder `out`; gives the record.

    `config.json` is rewritten in both schemas; weights are hard-linked where the file system can (else copied) and
    never opened for writing; tokenizer files are copied. The folder appears whole or not at all.

    >>> extend("pilot", to=1024, out=folder / "longer").ropes["after"]["full_attention"]["scaling"]
    {'rope_type': 'linear', 'factor': 4.0}
    """
    out = Path(out)
    require_new(out)
    extension = planned_extension(model, to, method)
    if not extension.checkpoint.tokenizer_files:
        progress.warn(f"{extension.checkpoint.folder} has no tokenizer files; the new folder has none either.")
    run = _record(extension)
    with whole_folder(out) as folder:
        fill(folder, extension)
        run.finish(folder)
    return run


def fill(folder: Path, extension: Extension) -> None:
    """Everything of the extended checkpoint but its record."""
    checkpoint, window = extension.checkpoint, extension.after.window
    write_json(folder / "config.json", extension.config)
    for name in checkpoint.weight_files:
        link_or_copy(checkpoint.folder / name, folder / name)
    if (checkpoint.folder / INDEX).is_file():
        shutil.copyfile(checkpoint.folder / INDEX, folder / INDEX)
    copy_companions(checkpoint, folder, window.target)
    text = card(subject_of(checkpoint)["name"], extension.method, extension.before, extension.after)
    (folder / CARD).write_text(text, encoding="utf-8")


def _record(extension: Extension) -> Run:
    checkpoint = extension.checkpoint
    subject = subject_of(checkpoint) | {
        "method": extension.method,
        "original": extension.before.window.original,
        "target": extension.after.window.target,
        "window": extension.after.window.target,
    }
    return Run(
        command="extend",
        given={"model": str(checkpoint.folder), "to": extension.after.window.target, "method": extension.method},
        resolved={
            "subject": subject,
            "stretch": extension.after.window.stretch,
            "written_as": {
                "rope_type": extension.after.scaling.rope_type,
                "schemas": ["transformers 5", "transformers 4"],
            },
        },
        ropes={
            "before": {"full_attention": extension.before.for_record()},
            "after": {"full_attention": extension.after.for_record()},
        },
        seed=None,
        inputs=[input_file(checkpoint.folder / "config.json")],
    )
