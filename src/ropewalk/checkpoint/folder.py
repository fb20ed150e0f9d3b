"""One model folder on disk, or one hub id. Weights are linked or copied, never loaded here and never written to."""

import errno
import json
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ropewalk.atomic import write_text
from ropewalk.checkpoint.files import (
    INDEX,
    checked_tensors,
    files_of_weights,
    require_own_code_only,
    require_plain_companions,
)
from ropewalk.checkpoint.headers import StoredTensor
from ropewalk.checkpoint.inside import require_inside, unreadable
from ropewalk.checkpoint.output import require_no_run
from ropewalk.checkpoint.position_table import LearnedTable, table_of
from ropewalk.checkpoint.rope_blocks import SIDES, text_section
from ropewalk.checkpoint.rope_config import read_ropes
from ropewalk.checkpoint.trained_on import TRAINED_ON, trained_on
from ropewalk.checkpoint.values import count
from ropewalk.errors import CheckpointError
from ropewalk.reading import parsed_json, read_bounded
from ropewalk.record import FILE
from ropewalk.rope.spec import RopeSpec, Window

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
)
OTHER_FILES = ("generation_config.json", "LICENSE", "LICENSE.txt", "LICENSE.md", "NOTICE", "USE_POLICY.md")
HUB_FILES = ("*.safetensors", INDEX, *TOKENIZER_FILES, *OTHER_FILES, TRAINED_ON, "config.json")
PILOT = "pilot"

_LENGTH_KEYS = {"tokenizer_config.json": "model_max_length", "generation_config.json": "max_length"}
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True)
class Checkpoint:
    """A model folder whose config was read and whose weight files are all there."""

    folder: Path
    name: str
    config: dict[str, Any]

    @cached_property
    def ropes(self) -> dict[str, RopeSpec]:
        """The rotation of each kind of layer. Raises CheckpointError when the model does not rotate."""
        return read_ropes(self.config, str(self.folder / "config.json"))

    @property
    def rope(self) -> RopeSpec:
        """The rotation of the layers that attend to the whole window. Raises CheckpointError when none rotates."""
        return self.ropes["full_attention"]

    @cached_property
    def table(self) -> LearnedTable | None:
        """The learned table of positions, of the model types that have one and do not rotate."""
        return table_of(self.config, str(self.folder / "config.json"))

    @property
    def window(self) -> Window:
        return self.rope.window if self.table is None else self.table.window

    def positions_for_record(self) -> dict[str, Any]:
        """How positions enter, as plain values for run.json: the rotation of each kind of layer, or the table."""
        if self.table is not None:
            return {"learned_table": self.table.for_record()}
        return {kind: rope.for_record() for kind, rope in self.ropes.items()}

    @cached_property
    def weight_files(self) -> tuple[str, ...]:
        """Names of the safetensors files, in order; every one is in the folder. Raises CheckpointError otherwise."""
        return files_of_weights(self.folder)

    @cached_property
    def tensors(self) -> dict[str, tuple[StoredTensor, ...]]:
        """The tensors of each file of weights, by the headers, which are checked. Raises CheckpointError otherwise."""
        return checked_tensors(self.folder, self.weight_files)

    @cached_property
    def parameters(self) -> int:
        """Count of stored numbers, from the tensor headers alone."""
        return sum(tensor.count for tensors in self.tensors.values() for tensor in tensors)

    @property
    def tokenizer_files(self) -> tuple[str, ...]:
        return tuple(name for name in TOKENIZER_FILES if (self.folder / name).is_file())


def open_checkpoint(model: str | Path) -> Checkpoint:
    """The checkpoint in a folder, or of a hub id (`org/name`, fetched or found in the hub cache), or the pilot.

    Raises CheckpointError when there is no such model, or its config or weights are missing or broken.
    """
    checkpoint = _with_config(*_resolved(model))
    checkpoint.window  # noqa: B018  a model that cannot be extended is refused here, before any work
    source = str(checkpoint.folder / "config.json")
    require_own_code_only(checkpoint.config, source)
    _require_sides(text_section(checkpoint.config), source)
    require_plain_companions(checkpoint.folder, (*TOKENIZER_FILES, *OTHER_FILES, TRAINED_ON, FILE))
    trained_on(checkpoint.folder)
    checkpoint.parameters  # noqa: B018  a model whose weights are not whole is refused here, before any work
    return checkpoint


def _require_sides(text: dict[str, Any], source: str) -> None:
    """Raises CheckpointError for a count of layers, heads or dimensions that is none; one that is unsaid is let pass."""
    for keys in SIDES.values():
        count(text, keys, source)


def open_config(model: str | Path) -> Checkpoint:
    """The same for a model that rotates, with no look at the weights, which may be missing; of a hub id only config.json
    is fetched."""
    checkpoint = _with_config(*_resolved(model, ("config.json",)))
    checkpoint.rope  # noqa: B018  as above
    return checkpoint


def _with_config(folder: Path, name: str) -> Checkpoint:
    path = folder / "config.json"
    require_inside(path)
    try:
        config = config_of(read_bounded(path))
    except FileNotFoundError:
        require_no_run(folder)
        raise CheckpointError(
            f"{folder} is not a model folder: config.json is missing.\n"
            "  Expected a folder as transformers saves it: config.json, *.safetensors, tokenizer files.\n"
            "  Check the path, or fetch the checkpoint again."
        ) from None
    except OSError as error:
        raise unreadable(path, error) from None
    except ValueError as error:
        raise CheckpointError(
            f"{path} cannot be read: {error}.\n"
            "  Expected one JSON object, as transformers writes it.\n"
            "  Fetch the checkpoint again."
        ) from None
    return Checkpoint(folder, name, config)


def config_of(raw: bytes) -> dict[str, Any]:
    """The object in the text of a config.json. Raises ValueError where there is none."""
    config = parsed_json(raw)
    if not isinstance(config, dict):
        raise ValueError(f"it holds {type(config).__name__}, not an object")
    return config


def pilot_folder() -> Path:
    """The checkpoint that ships with the package."""
    return Path(__file__).resolve().parents[1] / "pilot" / "checkpoint"


def link_or_copy(source: Path, destination: Path, size: int) -> None:
    """A second name for the file itself, behind any symlinks; a copy where the file system cannot link.

    `size` is what it had when its header was checked. Raises CheckpointError when it has gone or changed since.
    """
    resolved = source.resolve()
    try:
        os.link(resolved, destination)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.EACCES):
            _require_there(source, error)
            raise
        copied(resolved, destination)
    if (now := destination.stat().st_size) != size:
        raise _changed(source, f"it had {size:,} bytes when its header was read, and now {now:,}")


def copied(source: Path, destination: Path) -> None:
    """A copy. Raises CheckpointError when the source has gone, as a disk that is pulled out or a download that is moved."""
    try:
        shutil.copyfile(source, destination)
    except OSError as error:
        _require_there(source, error)
        raise


def _require_there(source: Path, error: OSError) -> None:
    if error.errno == errno.ESTALE or not os.access(source, os.R_OK):
        raise _changed(source, "it has gone, or may not be read any more") from None


def _changed(source: Path, what: str) -> CheckpointError:
    return CheckpointError(
        f"{source} changed while it was at work on: {what}.\n"
        "  A source is read as it lies, and was whole when this began; nothing was made of it.\n"
        "  See what else writes to that folder, then start again."
    )


def write_config(path: Path, config: dict[str, Any]) -> None:
    """Writes a config.json, whole or not at all; keys that are not ours keep their values, infinite ones too."""
    write_text(path, json.dumps(config, indent=2, ensure_ascii=False) + "\n")


def copy_companions(checkpoint: Checkpoint, folder: Path, window: int) -> None:
    """What lies beside config and weights, for a model with this window.

    Files are copied byte for byte, but for a `model_max_length` of the tokenizer and a `max_length` of generation that
    lie below the window: they would cut texts there without a word.
    """
    for name in (*checkpoint.tokenizer_files, *OTHER_FILES):
        source = checkpoint.folder / name
        if not source.is_file():
            continue
        copied(source, folder / name)
        if name in _LENGTH_KEYS:
            # a number of more digits than any window has says "no limit", and stays
            pattern = re.compile(rf'("{_LENGTH_KEYS[name]}"\s*:\s*)(\d{{1,15}})(?:\.0)?(?=\s*[,}}])'.encode())
            raised = pattern.sub(lambda m: m[1] + str(max(int(m[2]), window)).encode(), source.read_bytes())
            (folder / name).write_bytes(raised)


def _resolved(model: str | Path, files: Sequence[str] | None = None) -> tuple[Path, str]:
    text = str(model)
    try:
        path = Path(model).expanduser()
    except RuntimeError:  # ~name of nobody here
        path = Path(model)
    try:
        is_folder, is_there = path.is_dir(), path.exists()
    except OSError as error:  # a folder above it that may not be searched, a name that is too long
        raise unreadable(path, error) from None
    if is_folder:
        return path, path.resolve().name
    if is_there:
        raise CheckpointError(f"{path} is a file.\n  MODEL is a folder with config.json in it, or a hub id (org/name).")
    if text == PILOT:
        return pilot_folder(), PILOT
    if isinstance(model, str) and _HUB_ID.fullmatch(text):
        return _from_hub(text, files or HUB_FILES), text
    raise CheckpointError(
        f"no such model: {text}.\n"
        "  MODEL is a folder with config.json in it, a hub id (org/name), or 'pilot'.\n"
        "  Check the path."
    )


def _from_hub(hub_id: str, files: Sequence[str]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        return Path(snapshot_download(hub_id, allow_patterns=list(files)))
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, HfHubHTTPError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(
            f"no such model: {hub_id} is no folder here, and the hub did not give it ({reason})\n"
            "  MODEL is a folder with config.json in it, or a hub id (org/name).\n"
            "  Check the name and the network; with HF_HUB_OFFLINE=1 only models already in the hub cache are found."
        ) from None
