"""`ropewalk extend`: a checkpoint in, the same checkpoint with a longer window out, in a second."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ropewalk.checkpoint.card import CARD, card
from ropewalk.checkpoint.families import FULL_ATTENTION, assert_scalable, layer_notes
from ropewalk.checkpoint.files import INDEX, WEIGHTS
from ropewalk.checkpoint.folder import (
    Checkpoint,
    copied,
    copy_companions,
    link_or_copy,
    open_checkpoint,
    write_config,
)
from ropewalk.checkpoint.layers import require_layers
from ropewalk.checkpoint.output import require_new, require_outside, whole_folder
from ropewalk.checkpoint.position_table import LearnedTable, config_with, stretched
from ropewalk.checkpoint.rope_blocks import text_section
from ropewalk.checkpoint.rope_config import contradictions
from ropewalk.checkpoint.rope_writing import sayable, written
from ropewalk.checkpoint.subject import UNSCALED_METHODS, UNTUNED, subject_of
from ropewalk.checkpoint.table_writing import file_with_table, write_weights
from ropewalk.checkpoint.trained_on import write_trained_on
from ropewalk.errors import RopeError
from ropewalk.names import unknown
from ropewalk.progress import Progress, silent
from ropewalk.record import Run, input_file
from ropewalk.rope.methods import TABLE_METHOD, native, require_known
from ropewalk.rope.options import require_options_of, rescaled_by
from ropewalk.rope.scalings import Unscaled
from ropewalk.rope.spec import RopeSpec, Window

STARTS = ("here", "original")


@dataclass(frozen=True)
class Extension:
    """What an extension changes, before anything is written."""

    checkpoint: Checkpoint
    method: str
    before: RopeSpec | LearnedTable
    after: RopeSpec | LearnedTable  # of the same kind

    options: dict[str, Any]
    start: str

    @property
    def config(self) -> dict[str, Any]:
        if isinstance(self.after, LearnedTable):
            return config_with(self.checkpoint.config, self.after)
        return written(self.checkpoint.config, self.after)

    @property
    def notes(self) -> list[str]:
        """What the longer window will not do, and what the base's config contradicts itself in, in sentences."""
        if self.checkpoint.table is not None:
            return []
        config = self.checkpoint.config
        said_twice = contradictions(config, self.checkpoint.rope) if self.start == "here" else []
        return [*layer_notes(text_section(config)), *said_twice]

    @property
    def form(self) -> str:
        """How config.json says it, in a few words."""
        if isinstance(self.after, LearnedTable) or isinstance(self.before, LearnedTable):
            return f"a table of {self.after.window.target} positions"
        if isinstance(self.after.scaling, Unscaled):
            raised = self.after.theta != self.before.theta
            return f"rope_theta {self.after.theta:.8g}" if raised else "the declared window alone"
        return f"rope_type {self.after.scaling.rope_type}"


def planned_extension(
    model: str | Path, to: int, method: str = "pi", options: dict[str, Any] | None = None, start: str = "here"
) -> Extension:
    """The extension of `model` to `to` tokens. Raises RopewalkError when it cannot be.

    `start="original"` puts back the base's own rotation before the method is applied; "here" extends what is there.
    """
    require_known(method)
    if start not in STARTS:
        raise RopeError(unknown("start", start, STARTS))
    checkpoint = open_checkpoint(model)
    require_layers(checkpoint)
    if checkpoint.table is not None:
        after = _resampled_table(checkpoint, checkpoint.table, to, method, options, start)
        return Extension(checkpoint, method, checkpoint.table, after, dict(options or {}), start)
    before = _restored(checkpoint) if start == "original" else checkpoint.rope
    if start == "here":
        _require_settled(checkpoint, method)
    assert_scalable(text_section(checkpoint.config), method)
    after = sayable(checkpoint.config, rescaled_by(method, before, to, options))
    return Extension(checkpoint, method, before, after, dict(options or {}), start)


def _resampled_table(
    checkpoint: Checkpoint, table: LearnedTable, to: int, method: str, options: dict[str, Any] | None, start: str
) -> LearnedTable:
    """The longer table. Raises RopeError for a method of rotary positions, or a base that is no longer there."""
    if method != TABLE_METHOD:
        raise RopeError(
            f"cannot apply {method}: {checkpoint.name} has {table.in_words()}, and does not rotate.\n"
            "  The other methods rescale rotary position embeddings (RoPE).\n"
            f"  Use --method {TABLE_METHOD}, which resamples the table for the longer window."
        )
    require_options_of(method, options or {})
    if start == "original":
        raise RopeError(
            "cannot put the base's own table back: a resampled one does not hold it.\n"
            "  --from original is for rotation, which config.json alone decides.\n"
            "  Start from the base checkpoint."
        )
    _require_settled(checkpoint, method)
    longer = stretched(table, to)
    file_with_table(checkpoint.folder, checkpoint.weight_files, table)
    return longer


def _restored(checkpoint: Checkpoint) -> RopeSpec:
    """The base's own rotation. What config.json no longer says of it is in the record of the extension."""
    rope, subject = checkpoint.rope, subject_of(checkpoint)
    if subject["theta"] is None:
        raise RopeError(
            f"cannot put the base's own rotation back: the record in {checkpoint.folder} is of an older version, and does "
            "not say the base's theta.\n"
            f"  config.json says {rope.theta:.8g}, which {subject['method']} or a method before it may have raised.\n"
            "  Start from the base checkpoint."
        )
    window = Window(subject["original"], subject["original"])
    return replace(native(rope), window=window, theta=subject["theta"])


def _require_settled(checkpoint: Checkpoint, method: str) -> None:
    """Refuses a window that was declared longer and never tuned: it shows in config.json as if it were pretrained."""
    subject = subject_of(checkpoint)
    if subject["method"] in UNSCALED_METHODS and not subject["tuned"]:
        raise RopeError(
            f"cannot apply {method}: this checkpoint's window was already lengthened by {subject['method']}, and it was "
            "not tuned since.\n"
            f"  Its run.json in {checkpoint.folder} says so; its config.json alone would give a wrong stretch.\n"
            f"  Start from the base checkpoint{'' if checkpoint.table else ', or put its rotation back: --from original'}."
        )


def extend(
    model: str | Path,
    *,
    to: int,
    out: str | Path,
    method: str = "pi",
    options: dict[str, Any] | None = None,
    start: str = "here",
    progress: Progress = silent,
) -> Run:
    """Writes `model` with a window of `to` tokens into the new folder `out`; gives the record.

    `config.json` is rewritten in both schemas; weights are hard-linked where the file system can (else copied) and
    never opened for writing; tokenizer files are copied. The folder appears whole or not at all. `options` are the
    method's own; `start="original"` takes a scaling that is there away first. Layers with a sliding window keep their
    rotation where config.json has one for them.

    >>> extend("pilot", to=1024, out=folder / "longer").ropes["after"]["full_attention"]["scaling"]
    {'rope_type': 'linear', 'factor': 4.0}
    """
    out = Path(out)
    require_new(out)
    extension = planned_extension(model, to, method, options, start)
    require_outside(out, extension.checkpoint.folder)
    if not extension.checkpoint.tokenizer_files:
        progress.warn(f"{extension.checkpoint.folder} has no tokenizer files; the new folder has none either.")
    for note in extension.notes:
        progress.warn(note)
    run = _record(extension)
    with whole_folder(out) as folder:
        fill(folder, extension)
        run.finish(folder)
    return run


def fill(folder: Path, extension: Extension) -> None:
    """Everything of the extended checkpoint but its record."""
    checkpoint, window = extension.checkpoint, extension.after.window
    write_config(folder / "config.json", extension.config)
    if isinstance(extension.after, LearnedTable):
        write_weights(folder, checkpoint, extension.after)
    else:
        for name in checkpoint.weight_files:
            size = max(tensor.stop for tensor in checkpoint.tensors[name])
            link_or_copy(checkpoint.folder / name, folder / name, size)
        if checkpoint.weight_files != (WEIGHTS,):
            copied(checkpoint.folder / INDEX, folder / INDEX)
    copy_companions(checkpoint, folder, window.target)
    write_trained_on(folder, (), checkpoint.folder)
    text = card(subject_of(checkpoint)["name"], extension.method, extension.before, extension.after)
    (folder / CARD).write_text(text, encoding="utf-8", errors="replace")


def _record(extension: Extension) -> Run:
    checkpoint = extension.checkpoint
    subject = subject_of(checkpoint) | {
        "method": extension.method,
        "target": extension.after.window.target,
        "window": extension.after.window.target,
        **UNTUNED,
    }
    return Run(
        command="extend",
        given={
            "model": str(checkpoint.folder),
            "to": extension.after.window.target,
            "method": extension.method,
            "options": extension.options,
            "start": extension.start,
        },
        resolved={
            "subject": subject,
            "stretch": extension.after.window.stretch,
            "written_as": _written_as(extension),
        },
        ropes={"before": checkpoint.positions_for_record(), "after": _positions_after(extension)},
        seed=None,
        inputs=[input_file(checkpoint.folder / "config.json")],
    )


def _written_as(extension: Extension) -> dict[str, Any]:
    if isinstance(extension.after, LearnedTable):
        return {"form": extension.form, "tensor": extension.after.kind.tensor}
    return {
        "rope_type": extension.after.scaling.rope_type,
        "form": extension.form,
        "schemas": ["transformers 5", "transformers 4"],
    }


def _positions_after(extension: Extension) -> dict[str, Any]:
    if isinstance(extension.after, LearnedTable):
        return {"learned_table": extension.after.for_record()}
    return extension.checkpoint.positions_for_record() | {FULL_ATTENTION: extension.after.for_record()}
