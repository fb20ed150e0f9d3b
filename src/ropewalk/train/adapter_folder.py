"""What tuning without merging leaves: the adapter alone, as peft writes and reads it."""

import os
import shutil
from pathlib import Path

from torch import Tensor

from ropewalk.checkpoint.card import CARD, adapter_card
from ropewalk.checkpoint.folder import Checkpoint
from ropewalk.checkpoint.output import whole_folder
from ropewalk.checkpoint.subject import subject_of
from ropewalk.errors import OutputError
from ropewalk.model.adapters import Trained
from ropewalk.model.ranks import ALONE, Ranks
from ropewalk.model.sharding import whole
from ropewalk.train.state import write_tensors

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"


def write_adapter(out: Path, checkpoint: Checkpoint, trained: Trained, tuning: str, ranks: Ranks = ALONE) -> None:
    """peft's two files and the card in `out`, adapter_config.json last, so that it is loadable only when it is whole.

    The tensors stay in the dtype they were trained in, whatever the base is stored in. Of several ranks each must call
    this; the first writes.
    """
    tensors = {name: whole(tensor).cpu().contiguous() for name, tensor in trained.tensors().items()}
    ranks.first(lambda: _write(out, checkpoint, trained, tuning, tensors))


def _write(out: Path, checkpoint: Checkpoint, trained: Trained, tuning: str, tensors: dict[str, Tensor]) -> None:
    hub_id = "/" in checkpoint.name  # a folder's name has none
    base = checkpoint.name if hub_id else str(checkpoint.folder)
    shutil.rmtree(out / "adapter", ignore_errors=True)  # of a run that was killed right here
    try:
        with whole_folder(out / "adapter") as beside:
            write_tensors(tensors, beside / WEIGHTS)
            trained.config(base).save_pretrained(str(beside))
        card = adapter_card(subject_of(checkpoint)["name"], base, checkpoint.table or checkpoint.rope, tuning)
        (out / CARD).write_text(card, encoding="utf-8", errors="replace")
        for name in (WEIGHTS, CONFIG):
            os.replace(out / "adapter" / name, out / name)
        shutil.rmtree(out / "adapter")
    except OSError as error:
        raise OutputError(f"cannot write {out}: {error}.\n  Free some space, then go on with --resume.") from error
