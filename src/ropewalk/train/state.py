"""Saves of a run in progress: weights, optimizer and step; each whole or not there. No pickle."""

import errno
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ropewalk.atomic import remove_unfinished
from ropewalk.checkpoint.output import remove_folder, whole_folder
from ropewalk.errors import CheckpointError

SAVES = "saves"
_NAME = re.compile(r"step-(\d{6,})")


@dataclass(frozen=True)
class SavedState:
    """A whole save: its folder and what its state.json says."""

    folder: Path
    state: dict[str, Any]

    @property
    def step(self) -> int:
        return int(self.state["step"])

    @property
    def layout(self) -> tuple[int, int]:
        """Ranks along data and sequence of the run that saved."""
        data, sequence = self.state.get("layout", (1, 1))
        return int(data), int(sequence)

    @property
    def is_sharded(self) -> bool:
        """Whether each rank wrote a file of its own."""
        return "layout" in self.state

    def require_whole(self) -> None:
        """Raises CheckpointError where a file that it was written with is missing, or is of another size."""
        there = sizes_of(self.folder)
        for name, size in self.state.get("files", {}).items():
            if there.get(name) != size:
                found = "is missing" if name not in there else f"holds {there[name]:,} bytes of {size:,}"
                raise CheckpointError(
                    f"the save {self.folder} cannot be read: {name} {found}.\n"
                    "  Every file that it was written with is needed, whole.\n"
                    "  Put it back, or remove the save and --resume."
                )


def sizes_of(folder: Path) -> dict[str, int]:
    """Bytes of each safetensors file."""
    return {path.name: path.stat().st_size for path in sorted(folder.glob("*.safetensors"))}


def save_state(
    run_folder: Path, step: int, model: torch.nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Any],
    keep: int,
) -> Path:  # fmt: skip
    """Writes `saves/step-NNNNNN` after `step` steps and removes all but the newest `keep` saves.

    Weights that are not trained are left out: the model that the run was begun with has them.
    """
    folder = run_folder / SAVES / f"step-{step:06d}"
    if all(saved.step != step for saved in saves(run_folder)):  # a run that was stopped right here has it already
        remove_folder(folder)  # what lost its state.json is no save
        _write(folder, model, optimizer, state | {"step": step})
    remove_saves(run_folder, keep)
    return folder


def remove_saves(run_folder: Path, keep: int) -> None:
    """Removes all but the newest `keep` saves, and what is left of saves that were never whole."""
    kept = [saved.folder for saved in saves(run_folder)[-keep:]] if keep else []
    for folder in _folders(run_folder):
        if folder not in kept:
            remove_folder(folder)
    remove_unfinished(run_folder / SAVES)
    if not keep:
        remove_folder(run_folder / SAVES)


def _write(folder: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    parameters = trained_parameters(model)
    names = {id(parameter): name for name, parameter in parameters.items()}
    moments: dict[str, torch.Tensor] = {}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            for key, value in optimizer.state[parameter].items():
                moments[f"{names[id(parameter)]}/{key}"] = value.detach().cpu().contiguous()
    with whole_folder(folder) as beside:
        weights = {name: p.detach().cpu().contiguous() for name, p in parameters.items()}
        write_tensors(weights, beside / "model.safetensors")
        write_tensors(moments, beside / "optimizer.safetensors")
        write_state(beside, state)


def write_state(folder: Path, state: dict[str, Any]) -> None:
    """Its state.json, when the tensors lie beside it."""
    (folder / "state.json").write_text(json.dumps(state | {"files": sizes_of(folder)}), encoding="utf-8")


def write_tensors(tensors: dict[str, torch.Tensor], path: Path) -> None:
    """A safetensors file. Raises OSError when the disk does, which safetensors has an error of its own for."""
    try:
        save_file(tensors, path)
    except SafetensorError as error:
        raise OSError(errno.EIO, str(error), str(path)) from error


def saves(run_folder: Path) -> list[SavedState]:
    """The whole saves of a run, oldest first. What was left unfinished has another name and is passed over."""
    found = []
    for folder in _folders(run_folder):
        try:
            found.append(SavedState(folder, json.loads((folder / "state.json").read_text(encoding="utf-8"))))
        except (OSError, ValueError):
            continue
    return found


def _folders(run_folder: Path) -> list[Path]:
    """Oldest first."""
    named = [(_NAME.fullmatch(folder.name), folder) for folder in (run_folder / SAVES).glob("step-*")]
    return [folder for _, folder in sorted((int(name[1]), folder) for name, folder in named if name)]


def require_readable(run_folder: Path) -> None:
    """Raises CheckpointError where the newest save does not say what it holds: going on from one before would lose its steps."""
    folders, whole = _folders(run_folder), saves(run_folder)
    if folders and (not whole or whole[-1].folder != folders[-1]):
        before = f"step {whole[-1].step}" if whole else "the beginning"
        raise CheckpointError(
            f"the save {folders[-1]} cannot be read: its state.json is missing or damaged.\n"
            f"  Without it the run would go on from {before}.\n"
            "  Put it back; or remove the save and --resume."
        )


def load_state(saved: SavedState, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Puts weights and optimizer back. Raises CheckpointError when the save belongs to another model, or is not whole."""
    saved.require_whole()
    parameters = trained_parameters(model)
    try:
        weights = load_file(saved.folder / "model.safetensors")
        moments = load_file(saved.folder / "optimizer.safetensors")
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"the save {saved.folder} cannot be read: {error}.\n  Remove it and --resume.") from None
    alike = weights.keys() == parameters.keys() and all(weights[n].shape == p.shape for n, p in parameters.items())
    if not (alike and _moments_are_of(moments, parameters)):
        raise of_another_model(saved)
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(weights[name])
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            name = next(n for n, p in parameters.items() if p is parameter)
            prefix = f"{name}/"
            optimizer.state[parameter] = {
                key.removeprefix(prefix): value.to(parameter.device)  # the count too: the fused update reads it there
                for key, value in moments.items()
                if key.startswith(prefix)
            }


def _moments_are_of(moments: dict[str, torch.Tensor], parameters: dict[str, torch.nn.Parameter]) -> bool:
    """Whether each tensor is one parameter's: of its shape, or a count of steps."""
    for key, value in moments.items():
        name, _, kind = key.rpartition("/")
        if name not in parameters or value.shape != (() if kind == "step" else parameters[name].shape):
            return False
    return bool(moments)


def trained_parameters(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def of_another_model(saved: SavedState) -> CheckpointError:
    return CheckpointError(
        f"the save {saved.folder} belongs to another model: its tensors differ in name or shape.\n"
        "  Resume with the model the run was begun with, or start over in a new folder."
    )
