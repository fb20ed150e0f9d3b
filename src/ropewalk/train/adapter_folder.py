"""What tuning without merging leaves: the adapter alone, as peft writes and reads it."""

import os
import shutil
from pathlib import Path

from ropewalk.checkpoint.card import CARD, adapter_card
from ropewalk.checkpoint.folder import Checkpoint
from ropewalk.checkpoint.output import whole_folder
from ropewalk.checkpoint.subject import subject_of
from ropewalk.errors import OutputError
from ropewalk.model.adapters import Trained
from ropewalk.train.state import write_tensors

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"


def write_adapter(out: Path, checkpoint: Checkpoint, trained: Trained, tuning: str) -> None:
    """peft's two files and the card in `out`, adapter_config.json last, so that it is loadable only when it is whole.

    The tensors stay in the dtype they were trained in, whatever the base is stored in.
    """
    hub_id = "/" in checkpoint.name  # a folder's name has none
    base = checkpoint.name if hub_id else str(checkpoint.folder)
    shutil.rmtree(out / "adapter", ignore_errors=True)  # of a run that was killed right here
    try:
        with whole_folder(out / "adapter") as beside:
            tensors = {name: tensor.cpu().contiguous() for name, tensor in trained.tensors().items()}
            write_tensors(tensors, beside / WEIGHTS)
            trained.config(base).save_pretrained(str(beside))
        card = adapter_card(subject_of(checkpoint)["name"], base, checkpoint.table or checkpoint.rope, tuning)
        (out / CARD).write_text(card, encoding="utf-8", errors="replace")
        for name in (WEIGHTS, CONFIG):
            os.replace(out / "adapter" / name, out / name)
        shutil.rmtree(out / "adapter")
    except OSError as error:
        raise OutputError(f"cannot write {out}: {error}.\n  Free some space, then go on with --resume.") from error
