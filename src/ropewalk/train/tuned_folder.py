"""What tuning leaves: the tuned checkpoint itself, as transformers saves it, with its card."""

import os
import shutil
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from ropewalk.checkpoint.card import CARD, tuned_card
from ropewalk.checkpoint.folder import Checkpoint, copy_companions, write_config
from ropewalk.checkpoint.output import whole_folder
from ropewalk.checkpoint.position_table import config_with
from ropewalk.checkpoint.rope_writing import written
from ropewalk.errors import OutputError
from ropewalk.model.load import DTYPES, LoadedModel, quiet_libraries
from ropewalk.model.ranks import ALONE, Ranks
from ropewalk.model.whole_files import cast, write_whole


def write_tuned(out: Path, loaded: LoadedModel, subject: dict[str, Any], trained: str, ranks: Ranks = ALONE) -> None:
    """The tuned checkpoint in `out`: weights first, config.json last, so that it is loadable only when it is whole.

    Of several ranks each must call this; the first writes.
    """
    try:
        ranks.first(lambda: shutil.rmtree(out / "weights", ignore_errors=True))  # of a run that was killed right here
        _write_weights(out / "weights", loaded, ranks)
        ranks.first(lambda: _finish(out, loaded.checkpoint, subject, trained))
    except (OSError, SafetensorError) as error:
        raise OutputError(f"cannot write {out}: {error}.\n  Free some space, then go on with --resume.") from error


def _write_weights(folder: Path, loaded: LoadedModel, ranks: Ranks) -> None:
    config = loaded.checkpoint.config
    stored = DTYPES.get(str(config.get("dtype") or config.get("torch_dtype")), DTYPES["float32"])
    if ranks.line is None:
        state = cast(loaded.model.state_dict(), lambda tensor: tensor.to(stored))
        with whole_folder(folder) as beside, quiet_libraries():
            loaded.model.save_pretrained(beside, state_dict=state)
    elif ranks.is_first:
        with whole_folder(folder) as beside:
            write_whole(loaded.model, beside, stored, ranks)
    else:
        write_whole(loaded.model, folder, stored, ranks)


def _finish(out: Path, checkpoint: Checkpoint, subject: dict[str, Any], trained: str) -> None:
    for path in sorted((out / "weights").glob("model*.safetensors*")):
        path.chmod(0o644)
        os.replace(path, out / path.name)
    shutil.rmtree(out / "weights")
    copy_companions(checkpoint, out, checkpoint.window.target)
    text = tuned_card(checkpoint, subject, tuning_words(subject, trained))
    (out / CARD).write_text(text, encoding="utf-8", errors="replace")
    table = checkpoint.table
    config = written(checkpoint.config, checkpoint.rope) if table is None else config_with(checkpoint.config, table)
    write_config(out / "config.json", config)


def tuning_words(subject: dict[str, Any], trained: str) -> str:
    """For the card: how it was tuned, and which of its weights."""
    return (
        f"Tuned for {subject['tuning_steps']} steps, {subject['tuning_tokens']:,} tokens in all, at a learning rate of "
        f"{subject['learning_rate']:g}; {trained}."
    )
