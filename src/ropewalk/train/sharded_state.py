"""Saves of a run of several ranks: every rank writes its slices, and any number of ranks reads them. No pickle.

torch.distributed.checkpoint (DCP) with safetensors as its storage: a file a rank, whose header says which part of each
tensor it holds. A tensor is called as in the saves of one process (`state`), so that DCP reads those too.
"""

import os
import secrets
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict_saver import save as save_slices

from ropewalk.atomic import beside_prefix, sync_folder
from ropewalk.checkpoint.output import remove_folder, sync_files
from ropewalk.errors import CheckpointError, OutputError, RopewalkError
from ropewalk.model.ranks import Ranks, first_line
from ropewalk.model.sharding import read_slices
from ropewalk.train.state import (
    SAVES,
    SavedState,
    of_another_model,
    remove_saves,
    saves,
    sizes_of,
    trained_parameters,
    write_state,
)

MOMENTS = ("exp_avg", "exp_avg_sq")


def save_sharded(
    run_folder: Path, step: int, model: torch.nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Any],
    keep: int, ranks: Ranks,
) -> Path:  # fmt: skip
    """As `save_state`, by all ranks together: the folder is renamed into place when every file is whole on the disk.

    Raises OutputError where the disk will not have it, or is not one that all ranks share.
    """
    folder = run_folder / SAVES / f"step-{step:06d}"
    there = any(saved.step == step for saved in saves(run_folder))
    if not ranks.most(float(there)):
        beside = _beside(folder, ranks)
        ranks.first(lambda: _make_empty(beside, folder))
        try:
            _write(beside, folder, _tensors(model, optimizer), ranks)
            ranks.first(lambda: _finish(beside, folder, state | {"step": step}, ranks.count))
        except RopewalkError:
            shutil.rmtree(beside, ignore_errors=True)
            raise
    ranks.first(lambda: remove_saves(run_folder, keep))
    return folder


def _write(beside: Path, folder: Path, tensors: dict[str, Any], ranks: Ranks) -> None:
    """Each rank's file. The first has made `beside`, under a name that was never there before, so no rank takes an old
    folder for it, nor remembers of a network disk that it is missing."""
    seen = ranks.summed([float(beside.is_dir())])[0]
    if seen < ranks.count:
        raise _not_shared(
            folder, f"{ranks.count - int(seen)} of {ranks.count} ranks do not see what the first made there"
        )
    try:
        save_slices(
            tensors,
            storage_writer=HuggingFaceStorageWriter(str(beside), save_distributed=True),
            process_group=None if ranks.line is None else ranks.line.get_group(),
            no_dist=ranks.line is None,
        )
    except CheckpointException as error:
        raise OutputError(
            f"cannot write {folder}: {_reason(error)}.\n"
            "  A save is written by every rank into one folder that all of them see.\n"
            "  Free some space or mend the path, then go on with --resume."
        ) from error


def load_sharded(saved: SavedState, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Puts weights and optimizer back, of each tensor what this rank holds; whoever wrote the save, one process or many.

    Raises CheckpointError when it belongs to another model, is not whole or cannot be read.
    """
    saved.require_whole()  # torch.distributed.checkpoint takes what is there for all: rows that are missing stay as they are
    for parameter in trained_parameters(model).values():
        optimizer.state[parameter] = {"step": torch.zeros((), device=parameter.device)} | {
            name: torch.zeros_like(parameter.detach()) for name in MOMENTS
        }
    wanted = _tensors(model, optimizer)
    reader = HuggingFaceStorageReader(str(saved.folder))
    try:
        stored: dict[str, Any] = reader.read_metadata().state_dict_metadata
        if {name: t.size for name, t in stored.items()} != {name: t.shape for name, t in wanted.items()}:
            raise of_another_model(saved)
        read_slices(wanted, saved.folder)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError, CheckpointException) as error:
        reason = _reason(error) if isinstance(error, CheckpointException) else str(error)
        raise CheckpointError(
            f"the save {saved.folder} cannot be read: {reason}.\n"
            "  Every rank's file is needed, whole.\n"
            "  Remove it and --resume."
        ) from None


def _tensors(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Weights by name and moments by name/kind; views of what model and optimizer hold."""
    tensors: dict[str, Any] = {}
    for name, parameter in trained_parameters(model).items():
        tensors[name] = parameter.detach()
        tensors |= {f"{name}/{kind}": value.detach() for kind, value in optimizer.state[parameter].items()}
    return tensors


def _beside(folder: Path, ranks: Ranks) -> Path:
    """A name of what is unfinished, the same on all ranks. The run's folder is locked, so no other run clears it away."""
    number = ranks.summed([float(secrets.randbits(32)) if ranks.is_first else 0.0])[0]
    return folder.with_name(f"{beside_prefix(folder)}{int(number):08x}")


def _make_empty(beside: Path, folder: Path) -> None:
    remove_folder(folder)  # what lost its state.json is no save
    beside.mkdir(parents=True)


def _finish(beside: Path, folder: Path, state: dict[str, Any], count: int) -> None:
    there = len(sizes_of(beside))
    if there != count:
        raise _not_shared(folder, f"{count} ranks wrote a file each, and {there} are there")
    write_state(beside, state)
    sync_files(beside)
    os.rename(beside, folder)
    sync_folder(folder.parent)


def _not_shared(folder: Path, found: str) -> OutputError:
    return OutputError(
        f"cannot save into {folder}: {found}.\n"
        "  A save is written by every rank into one folder, on a disk that all machines share.\n"
        "  Give such an --out."
    )


def _reason(error: CheckpointException) -> str:
    """What one of the ranks came upon: the first line of its exception, or its kind where it says nothing."""
    return next((first_line(failure[0]) for failure in error.failures.values()), "unknown")
