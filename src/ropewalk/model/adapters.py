"""What is trained of a model: every weight, LoRA, or LoRA with embeddings and norms in full.

LoRA (arXiv 2106.09685) adds alpha / rank * B A to the projections of attention and trains A and B alone. For longer
windows that falls short, and closes in on full tuning where embeddings and norms are trained too: LongLoRA (arXiv
2309.12307, 3.3 and table 2), which is `lora+` here. Layers and file format are peft's.
"""

import importlib.util
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ropewalk.errors import DataError
from ropewalk.names import unknown

FULL, LORA, LORA_PLUS = "full", "lora", "lora+"
ADAPTERS = (FULL, LORA, LORA_PLUS)
RANK, ALPHA = 8, 16.0  # LongLoRA's
_PEFT_NAME = "default"  # of the one adapter in peft's layers; files leave it out
_PEFT_TIES = ("embed_tokens", "lm_head")  # it keeps embeddings and heads tied where one of them is called so


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """Which weights are to be trained. `targets` None: the attention projections, whatever the model calls them."""

    name: str
    rank: int = RANK
    alpha: float = ALPHA
    targets: tuple[str, ...] | None = None
    merge: bool = True


def chosen_adapter(
    name: str,
    *,
    rank: int | None = None,
    alpha: float | None = None,
    targets: Sequence[str] | None = None,
    merge: bool = True,
) -> Adapter:
    """The adapter of that name, None standing for LongLoRA's settings. Raises DataError for what cannot be had."""
    if name not in ADAPTERS:
        raise DataError(unknown("adapter", name, ADAPTERS))
    if name == FULL:
        _refuse_settings({"--lora-rank": rank, "--lora-alpha": alpha, "--lora-targets": targets}, merge)
        return Adapter(name=name)
    if importlib.util.find_spec("peft") is None:
        raise DataError(
            f"--adapter {name} needs the library peft, which is not here.\n"
            "  LoRA's layers and the format of its files are peft's.\n"
            "  Install it: pip install 'ropewalk[lora]'; or train every weight: --adapter full."
        )
    rank, alpha = RANK if rank is None else rank, ALPHA if alpha is None else float(alpha)
    if rank < 1:
        raise DataError(
            f"--lora-rank is {rank}.\n  A and B have at least one row between them.\n  LongLoRA's is {RANK}."
        )
    if not (math.isfinite(alpha) and alpha > 0):
        raise DataError(
            f"--lora-alpha is {alpha}.\n  What is learned is multiplied by alpha / rank.\n"
            f"  Give a number above 0; LongLoRA's is {ALPHA:g}."
        )
    if targets is not None and not targets:
        raise DataError("--lora-targets names nothing.\n  Give names such as q_proj,v_proj, or leave it out.")
    return Adapter(
        name=name, rank=rank, alpha=alpha, targets=None if targets is None else tuple(dict.fromkeys(targets)),
        merge=merge,
    )  # fmt: skip


def _refuse_settings(settings: dict[str, Any], merge: bool) -> None:
    given = [name for name, value in settings.items() if value is not None] + ([] if merge else ["--no-merge"])
    if given:
        raise DataError(
            f"no effect with --adapter full: {', '.join(given)}.\n"
            "  Every weight is trained, and there is no adapter to set or to leave apart.\n"
            "  Leave it out, or use --adapter lora or lora+."
        )


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A model whose weights to train require gradients, and no others.

    The model is the object it was, with peft's layers in place of the targets, until `merge`. `targets` and `whole`
    (modules trained in full) are names as peft matches them against the ends of module names. `tied_head` names an
    output head that is the embedding, if that is trained.
    """

    model: PreTrainedModel
    adapter: Adapter
    parameters: int
    targets: tuple[str, ...] = ()
    whole: tuple[str, ...] = ()
    tied_head: str | None = None
    tuner: Any = field(default=None, repr=False)

    def merge(self) -> None:
        """Adds what LoRA learned to its projections, in the dtype the weights are trained in, and removes its layers."""
        if self.tuner is not None:
            self.tuner.merge_and_unload()

    def in_words(self) -> str:
        """For the model card."""
        if self.tuner is None:
            return "every weight was trained"
        lora = f"LoRA of rank {self.adapter.rank} and alpha {self.adapter.alpha:g} on {', '.join(self.targets)}"
        if self.adapter.name == LORA:
            return f"{lora} was trained, and no other weight"
        embeddings = "embeddings, which are the output head too," if self.tied_head else "input embeddings"
        return f"{lora} was trained, the {embeddings} and norms in full, and no other weight"

    def for_record(self) -> dict[str, Any]:
        record: dict[str, Any] = {"adapter": self.adapter.name, "trained_parameters": self.parameters}
        if self.tuner is not None:
            record |= {
                "lora_rank": self.adapter.rank,
                "lora_alpha": self.adapter.alpha,
                "lora_targets": list(self.targets),
                "trained_in_full": list(self.whole),
                "merged": self.adapter.merge,
            }
        return record

    def tensors(self) -> dict[str, Tensor]:
        """What was trained, by the names of peft's adapter_model.safetensors."""
        found = {name: p.detach() for name, p in self.model.named_parameters() if p.requires_grad}
        if self.tied_head:
            embedding: Any = self.model.get_input_embeddings()
            found[f"{self.tied_head}.weight"] = embedding.weight.detach().clone()  # a file holds each tensor once
        return {f"base_model.model.{name.replace(f'.{_PEFT_NAME}.', '.')}": tensor for name, tensor in found.items()}

    def config(self, base: str) -> Any:
        """peft's configuration for these tensors over the model at `base`."""
        whole = [*self.whole, self.tied_head] if self.tied_head else [*self.whole]
        ties = bool(self.tied_head) and any(name.rpartition(".")[2] in _PEFT_TIES for name in whole)
        return _config(
            self.adapter, self.targets, base_model_name_or_path=base, inference_mode=True,
            modules_to_save=whole or None, ensure_weight_tying=ties,
        )  # fmt: skip


def attached(model: PreTrainedModel, adapter: Adapter, seed: int) -> Trained:
    """`model` itself, made ready to train what `adapter` says. Raises DataError when a target matches nothing.

    B begins at zero, so the model's answers do not change; A is drawn from `seed`.
    """
    if adapter.name == FULL:
        return Trained(model=model, adapter=adapter, parameters=_trained_parameters(model))
    from peft import LoraModel

    names = {id(module): name for name, module in model.named_modules()}
    targets = _short([names[id(module)] for module in _projections(model, adapter)], names.values())
    whole: list[Any] = [model.get_input_embeddings(), *_norms(model)] if adapter.name == LORA_PLUS else []
    kept = _short([names[id(module)] for module in whole], names.values())
    with torch.random.fork_rng(devices=[]):  # peft draws A on the CPU
        torch.default_generator.manual_seed(seed)
        tuner = LoraModel(model, _config(adapter, targets), _PEFT_NAME)
    for module in whole:
        module.requires_grad_(True)
    return Trained(
        model=model, adapter=adapter, parameters=_trained_parameters(model), targets=targets, whole=kept, tuner=tuner,
        tied_head=_tied_head(model) if whole else None,
    )  # fmt: skip


def _config(adapter: Adapter, targets: Sequence[str], **more: Any) -> Any:
    from peft import LoraConfig, TaskType

    alpha: Any = int(adapter.alpha) if adapter.alpha.is_integer() else adapter.alpha  # other readers expect whole ones
    # without dropout, as LongLoRA: a resumed run has no random state to go back to
    return LoraConfig(
        r=adapter.rank, lora_alpha=alpha, lora_dropout=0.0, bias="none", task_type=TaskType.CAUSAL_LM,
        target_modules=list(targets), **more,
    )  # fmt: skip


def _projections(model: PreTrainedModel, adapter: Adapter) -> list[torch.nn.Linear]:
    """The linear modules to adapt. Not the output head: its weight is read, not its module called, by the fast loss."""
    head = model.get_output_embeddings()
    linears = {n: m for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and m is not head}
    if adapter.targets is None:
        inside = [f"{name}." for name, module in model.named_modules() if type(module).__name__.endswith("Attention")]
        found = [module for name, module in linears.items() if name.startswith(tuple(inside))]
        if not found:
            raise _no_such_target("no attention projections were found in this model", linears)
        return found
    for target in adapter.targets:
        if not any(_ends(name, target) for name in linears):
            raise _no_such_target(f"--lora-targets has {target!r}, and no linear layer of this model ends so", linears)
    return [module for name, module in linears.items() if any(_ends(name, target) for target in adapter.targets)]


def _no_such_target(what: str, linears: Iterable[str]) -> DataError:
    names = sorted({name.rpartition(".")[2] for name in linears})
    return DataError(
        f"{what}.\n"
        "  LoRA stands beside linear layers; the output head is not among them.\n"
        f"  Give --lora-targets from these: {', '.join(names) or 'none'}."
    )


def _norms(model: PreTrainedModel) -> list[torch.nn.Module]:
    """Modules that normalize and have weights to train; transformers' classes have the word in their name."""
    named = [module for module in model.modules() if "norm" in type(module).__name__.lower()]
    return [module for module in named if next(module.parameters(recurse=False), None) is not None]


def _tied_head(model: PreTrainedModel) -> str | None:
    embedding: Any = model.get_input_embeddings()
    head: Any = model.get_output_embeddings()
    if head is None or head.weight is not embedding.weight:
        return None
    return next(name for name, module in model.named_modules() if module is head)


def _ends(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")


def _short(names: Sequence[str], known: Iterable[str]) -> tuple[str, ...]:
    """The last words of these module names, where they match no other module; else the names whole.

    peft takes every module that ends so: `norm` stands for `input_layernorm` too.
    """
    short = tuple(dict.fromkeys(name.rpartition(".")[2] for name in names))
    return short if {name for name in known if name.endswith(short)} == set(names) else tuple(names)


def _trained_parameters(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
