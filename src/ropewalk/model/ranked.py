"""A model divided over ranks: its weights read slice by slice, and the engine that makes gradients of it.

A checkpoint of a known family is never whole anywhere: the model is built without memory for its weights, divided, and
each rank opens its slices of each tensor in the safetensors files (`slices`). Of other families every rank loads the
checkpoint whole into the host's memory, and no more than a layer at a time goes whole to a GPU.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.distributed.fsdp import FSDPModule
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from ropewalk.checkpoint.folder import Checkpoint
from ropewalk.errors import RankError
from ropewalk.model.engine import Engine, Lean, Stock, autocast
from ropewalk.model.fit import left_over
from ropewalk.model.head import BodyAndHead
from ropewalk.model.lean import EVERYTHING, LeanEngine
from ropewalk.model.load import DTYPES, LoadedModel, chosen_device, load_codec, load_model, quiet_libraries, unloadable
from ropewalk.model.ranks import SEQUENCE, Ranks
from ropewalk.model.rotary import assert_rotates
from ropewalk.model.sharding import Sharded
from ropewalk.model.shareable import unshareable
from ropewalk.model.slices import own_slices
from ropewalk.model.ulysses import SharedRows, require_heads
from ropewalk.model.view import VIEWS, layer_view, without_view

PROBE = 24  # tokens
_ADAPTED = ".base_layer."  # what peft puts into the name of a weight that it stands beside


def load_hollow(checkpoint: Checkpoint, *, dtype: str, device: str | None = None) -> LoadedModel:
    """The checkpoint's model whose weights take no memory, for `divided` to fill; whole, where its family is not known.

    Its parameters are on the CPU whatever the device, views of one zero, so that adapters can be attached as to any model.
    Where the files do not hold just what the model asks for, `load_model` finds what to make of it, or refuses.
    """
    if checkpoint.config.get("model_type") not in VIEWS or checkpoint.table is not None:
        return _on_host(checkpoint, dtype, device)
    with quiet_libraries(), torch.device("meta"):
        try:
            config = AutoConfig.from_pretrained(checkpoint.folder, trust_remote_code=False, local_files_only=True)
            model = AutoModelForCausalLM.from_config(config, dtype=DTYPES[dtype], trust_remote_code=False)
        except (OSError, ValueError, KeyError, RuntimeError, TypeError) as error:
            raise unloadable(checkpoint, error) from error
    _with_parameters(model, lambda p: torch.zeros((), dtype=p.dtype).expand(p.shape))
    for name, module in list(model.named_modules()):
        if any(buffer.is_meta for buffer in module.buffers(recurse=False)):
            model.set_submodule(name, type(module)(config))
    stored = {tensor.name: tensor.shape for own in checkpoint.tensors.values() for tensor in own}
    other = any(stored.get(name) != tuple(parameter.shape) for name, parameter in _stored(model).items())
    if other or left_over(stored, model.state_dict().keys()):
        return _on_host(checkpoint, dtype, device)
    assert_rotates(model, checkpoint.ropes, str(checkpoint.folder))
    return LoadedModel(model, load_codec(checkpoint), checkpoint, chosen_device(device))


def _on_host(checkpoint: Checkpoint, dtype: str, device: str | None) -> LoadedModel:
    """The whole model, in the host's memory for a device whose own may not bear it; `divided` takes it there by parts."""
    chosen = chosen_device(device)
    return replace(load_model(checkpoint, dtype=dtype, device="cpu"), device=chosen)


def divided(loaded: LoadedModel, ranks: Ranks) -> Sharded:
    """The weights of the model, each rank's slices of them, those of the checkpoint where the model was hollow."""
    model: Any = loaded.model
    assert ranks.line is not None
    hollow = {name for name, p in _stored(model).items() if _is_hollow(p)}
    _with_parameters(model, lambda p: p.detach().to("meta") if _is_hollow(p) else p.detach())
    sharded = Sharded(model, _layers(model), ranks.line)  # FSDP2 takes what has memory to the GPU, a layer at a time
    if hollow:
        wanted = {name: p for name, p in _stored(model).items() if name in hollow}
        slices = {id(wanted[name]): part for name, part in own_slices(wanted, loaded.checkpoint)}
        _with_parameters(model, lambda p: slices.get(id(p), p.detach()))
    return sharded


def lean_over(model: Any, weights: Sharded, ranks: Ranks, compute: torch.dtype, sequence: int) -> LeanEngine | None:
    """The lean engine over divided weights, every layer keeping everything; None where it would not do what stock does.

    Raises RankError where `sequence` ranks cannot share the heads.
    """
    view = layer_view(model)
    if view is None:
        return None
    require_heads(view.query_heads, sequence)
    lean = LeanEngine(model, view, [EVERYTHING] * len(view.body.layers), compute, weights)
    return lean if _equals_stock(lean, model, ranks) else None


def ranked_engine(model: Any, weights: Sharded, ranks: Ranks, compute: torch.dtype, keeps: list[str]) -> Engine:
    """The lean engine over these ranks where the family is known, else the stock one.

    Raises RankError where rows are to be shared by ranks and the model cannot: no lean engine, or too few heads.
    """
    lean = lean_over(model, weights, ranks, compute, ranks.layout.sequence)
    if lean is not None:
        lean.keeps = keeps
        shared = None
        if ranks.mesh is not None and ranks.layout.sequence > 1:
            shared = SharedRows(ranks.mesh.get_group(SEQUENCE))
        return Lean(lean, compute, shared)
    if ranks.layout.sequence > 1:
        raise no_shared_rows(model, ranks.layout.sequence)
    for module in model.modules():
        if isinstance(module, FSDPModule):  # shares of the loss are of the whole batch: gradients are summed
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)
    parts = BodyAndHead(model, apart=False)  # FSDP2's hooks hang on the model's own forward
    return Stock(model, parts, compute, checkpointed=any(keep != EVERYTHING for keep in keeps))


def no_shared_rows(model: Any, sequence: int) -> RankError:
    """Of a model that the lean engine does not know by its config, or by what it computes."""
    why = without_view(model.config) or "what the lean engine computes is not what its stock forward pass does"
    return unshareable(sequence, why)


@torch.no_grad()
def _equals_stock(engine: LeanEngine, model: Any, ranks: Ranks) -> bool:
    """Whether its logits are those of the stock forward, which FSDP2's own hooks gather weights for."""
    tokens_BS = torch.arange(2 * PROBE, device=engine.device).view(2, PROBE) * 7 % model.config.vocab_size
    training = model.training
    model.eval()  # dropout would differ
    with autocast(engine.device, engine.compute, copies=False):
        theirs = model(tokens_BS, use_cache=False).logits.float()
        model.reshard()
        with engine.weights.gathered(model):
            ours = model.get_output_embeddings()(engine.hidden(tokens_BS)).float()
        exact = not torch.is_autocast_enabled(engine.device.type)
    model.train(training)
    away = float((ours - theirs).norm() / theirs.norm())
    return ranks.most(away) <= (1e-4 if exact else 3e-2)


def _layers(model: Any) -> list[torch.nn.Module]:
    """What is gathered at once: the blocks that transformers would not split between devices either."""
    blocks = set(model._no_split_modules or ())
    return [module for module in model.modules() if type(module).__name__ in blocks]


def _stored(model: PreTrainedModel) -> dict[str, Any]:
    """Parameters by the names that they have in a checkpoint's files, without those of adapters."""
    return {name.replace(_ADAPTED, "."): p for name, p in model.named_parameters() if ".lora_" not in name}


def _is_hollow(parameter: Tensor) -> bool:
    return parameter.untyped_storage().nbytes() < parameter.numel() * parameter.element_size()


def _with_parameters(model: torch.nn.Module, made: Callable[[Any], Any]) -> None:
    """Puts what `made` gives in place of each parameter; tied ones stay tied."""
    new: dict[int, torch.nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False, remove_duplicate=False)):
            if id(parameter) not in new:
                new[id(parameter)] = torch.nn.Parameter(made(parameter), requires_grad=parameter.requires_grad)
            setattr(module, name, new[id(parameter)])
