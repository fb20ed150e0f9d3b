"""Where numbers stop being finite: the module that makes the first NaN or infinity, by its name in the model."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ropewalk.model.ranks import ALONE, Ranks
from ropewalk.model.sharding import local

# B rows, L tokens


@torch.no_grad()
def first_not_finite(model: torch.nn.Module, tokens_BL: Tensor) -> str | None:
    """The first module of the stock forward pass that gives, or is given, a number that is not finite; None if all are.

    Attention's own products belong to no module: what breaks in them is found in what the output projection is given.
    """
    found: list[str] = []

    def look(name: str) -> Callable[..., None]:
        def hook(module: torch.nn.Module, given: Any, made: Any) -> None:
            if not found:
                if not all(map(_is_finite, _tensors(given))):
                    found.append(f"what {name} is given")
                elif not all(map(_is_finite, _tensors(made))):
                    found.append(f"what {name} gives")

        return hook

    leaves = [(name, module) for name, module in model.named_modules() if not any(module.children())]
    with _hooked([(module, look(name)) for name, module in leaves]):
        model(tokens_BL, use_cache=False)
    return found[0] if found else None


def first_weight_not_finite(model: torch.nn.Module, ranks: Ranks = ALONE) -> str | None:
    """The name of the first trained weight that holds a NaN or an infinity; None where there is none.

    Of several ranks each looks at its slices, and all get the same answer; every rank must ask.
    """
    trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    broken = (n for n, (_, parameter) in enumerate(trained) if not _is_finite(local(parameter.detach())))
    first = int(ranks.least(next(broken, len(trained))))
    return trained[first][0] if first < len(trained) else None


@contextmanager
def _hooked(hooks: list[tuple[torch.nn.Module, Callable[..., None]]]) -> Iterator[None]:
    handles = [module.register_forward_hook(hook) for module, hook in hooks]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for one in value:
            yield from _tensors(one)


def _is_finite(tensor: Tensor) -> bool:
    return not tensor.is_floating_point() or bool(tensor.isfinite().all())
