"""A rank's own part of each tensor of a checkpoint, left in the file for as long as nothing is written to it.

safetensors maps its files into memory, privately: a slice is a view of the map, takes none of the process's own memory
until the optimizer first changes it, and ranks of one machine that only read, as with LoRA, share what the system holds of
the file. A slice that has to be of another dtype, or on a GPU, is made anew there, and the next is opened after that.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.distributed.tensor import DTensor, Shard

from ropewalk.checkpoint.folder import Checkpoint
from ropewalk.model.load import unloadable


def own_slices(wanted: Mapping[str, Any], checkpoint: Checkpoint) -> Iterator[tuple[str, DTensor]]:
    """For each of the parameters, by its name in the files: the same DTensor, with what the files hold of this rank's slice.

    The parameters are divided by rows over a mesh of one axis, as FSDP2 does it, and may have no memory of their own.
    Raises CheckpointError where a file does not open.
    """
    for file_name, tensors in checkpoint.tensors.items():
        try:
            with safe_open(checkpoint.folder / file_name, framework="pt") as file:
                for name in (tensor.name for tensor in tensors if tensor.name in wanted):
                    yield name, _filled(wanted[name].detach(), file.get_slice(name))
        except (OSError, SafetensorError) as error:  # it was whole when the checkpoint was opened
            raise unloadable(checkpoint, error) from error


def _filled(hollow: DTensor, stored: Any) -> DTensor:
    (placement,), mesh = hollow.placements, hollow.device_mesh
    assert placement == Shard(0) and mesh.ndim == 1
    rows = hollow.shape[0]
    each = -(-rows // mesh.size())  # the last ranks have fewer rows, or none
    first = min(rows, each * mesh.get_local_rank())
    own: Tensor = stored[first : min(rows, first + each)]
    assert own.shape == hollow.to_local().shape
    own = own.to(mesh.device_type, hollow.dtype)
    return DTensor.from_local(own, mesh, [placement], run_check=False, shape=hollow.shape, stride=hollow.stride())
