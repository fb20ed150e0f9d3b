"""Counts the bytes that tensors hold at once, by what torch calls while it is watched."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from ropewalk.model.sharding import local


class Live(TorchDispatchMode):
    """Inside, `most` becomes the most bytes of storage there at once, but for that of `apart`.

    Every call is seen, those of autocast and of the backward pass too. A storage counts with the size it has then, for
    FSDP2 empties those of weights that it gives back. `wanted` may leave out calls by what they are and what they gave.
    """

    def __init__(self, apart: Iterable[Tensor] = (), wanted: Callable[[Any, Tensor], bool] | None = None):
        super().__init__()
        self._apart = {local(tensor).untyped_storage().data_ptr() for tensor in apart}
        self._wanted = wanted
        self._storages: Any = WeakIdKeyDictionary()
        self.most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        seen = made if self._wanted else (args, kwargs, made)  # what is written into with out= is no result
        for tensor in tree_leaves(seen):
            if isinstance(tensor, Tensor) and (self._wanted is None or self._wanted(func, tensor)):
                self._see(local(tensor))
        self.most = max(self.most, sum(storage.nbytes() for storage in self._storages))
        return made

    def _see(self, tensor: Tensor) -> None:
        storage = getattr(tensor, "elem", tensor).untyped_storage()  # a result that is still on its way wraps one
        if tensor.device.type != "meta" and storage.data_ptr() not in self._apart:
            self._storages[storage] = None


def casts_of(shapes: Iterable[tuple[int, ...]]) -> Callable[[Any, Tensor], bool]:
    """For `wanted`: 16-bit copies of tensors of these shapes."""
    known = set(shapes)

    def wanted(func: Any, made: Tensor) -> bool:
        return func is torch.ops.aten._to_copy.default and made.dtype is torch.bfloat16 and tuple(made.shape) in known

    return wanted
