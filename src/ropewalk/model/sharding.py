"""Weights, gradients and moments of a model divided over ranks by FSDP2, for engines that call layers by hand.

`fully_shard` leaves every rank a slice of each parameter. A layer is whole only inside `gathered`; where that is left
with gradients, they are summed over all ranks and each keeps the slice of its own. All ranks of a run hold slices, those
along the sequence too: a weight's gradient is a sum over tokens, wherever they lie.

Gathering and giving back are FSDP2's `unshard` and `reshard`. Its own reduction hangs on autograd's hooks, which an
engine that calls no module as a whole never meets, so gradients are reduced as DTensors: a sum that is spread over ranks
(`Partial`) becomes slices (`Shard`), in the weights' own dtype.

Weights are gathered in the dtype they are held in, and autocast makes copies of them in 16 bits, as it does in one process.
It would keep those until its context ends, which is when all layers are through, so they go with the layer.
"""

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
from torch.distributed.checkpoint.state_dict_loader import load as load_slices
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, Partial


class Weights(Protocol):
    """Who holds the weights that a module needs."""

    def gathered(self, module: Any, *, gradients: bool = False) -> contextlib.AbstractContextManager[None]:
        """Inside, the module's own parameters (not those of modules that are divided apart) are whole.

        With `gradients`, what `.grad` of them holds at the end is added to the gradients that the optimizer sees.
        """
        ...


class Whole:
    """One process holds everything."""

    def gathered(self, module: Any, *, gradients: bool = False) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()


class Sharded:
    """The weights of `model` over the ranks of `mesh`, each of `layers` by itself and the rest together."""

    def __init__(self, model: torch.nn.Module, layers: list[torch.nn.Module], mesh: DeviceMesh):
        self.mesh = mesh
        for layer in layers:
            fully_shard(layer, mesh=mesh)
        fully_shard(model, mesh=mesh)

    @contextlib.contextmanager
    def gathered(self, module: FSDPModule, *, gradients: bool = False) -> Iterator[None]:
        slices = _parameters(module)
        module.unshard()
        whole = _parameters(module)
        yield
        if gradients:
            for name, parameter in whole.items():
                if parameter is not slices[name] and parameter.requires_grad:
                    self._reduce(parameter, slices[name])
        module.reshard()
        torch.clear_autocast_cache()

    def _reduce(self, whole: Tensor, own: Any) -> None:
        # a rank that has none, because none of its tokens were asked for, takes part all the same
        grad = torch.zeros_like(whole) if whole.grad is None else whole.grad
        whole.grad = None
        grad = DTensor.from_local(grad, self.mesh, [Partial()], run_check=False).redistribute(placements=own.placements)
        own.grad = grad if own.grad is None else own.grad.add_(grad)


def _parameters(module: Any) -> dict[str, torch.nn.Parameter]:
    return dict(module.named_parameters())


def local(tensor: Any) -> Tensor:
    """What this rank holds of it."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: Any) -> Tensor:
    """All of it, on every rank; every rank must ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def read_slices(tensors: dict[str, Any], folder: Path) -> None:
    """Fills each tensor with what the safetensors files of `folder` hold under its name: of a slice, that slice.

    Each rank reads for itself. Raises what torch.distributed.checkpoint and safetensors raise.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")  # said also where that is asked for
        load_slices(tensors, storage_reader=HuggingFaceStorageReader(str(folder)), no_dist=True)
