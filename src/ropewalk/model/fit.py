"""Whether the tensors of a checkpoint are those that its config.json asks for: transformers fills gaps with random numbers."""

import re
from collections.abc import Collection, Iterable
from typing import Any

from ropewalk.checkpoint.folder import Checkpoint
from ropewalk.checkpoint.rope_blocks import text_section
from ropewalk.errors import CheckpointError

SHOWN = 3
# What older versions of transformers stored beside the weights, computed from the config then and now: frequencies of
# the rotation, the numbers of the positions, the triangle of the causal mask and the number that stood for minus infinity.
_COMPUTED = re.compile(r"(^|\.)(inv_freq|position_ids|(attn|attention)\.(masked_)?bias)$")


def require_fit(info: dict[str, Any], checkpoint: Checkpoint) -> None:
    """Raises CheckpointError where a model was not made of just the tensors that are stored.

    `info` is what `from_pretrained(..., output_loading_info=True)` says: names without those that the model's class
    declares to be no loss, and without tied ones.
    """
    lacking = sorted({*info["missing_keys"], *(name for name, *_ in info["mismatched_keys"])})
    unknown = left_over(info["unexpected_keys"], ())
    if not lacking and not unknown:
        return
    parts = [_named(lacking, "not there, or of another shape")] if lacking else []
    parts += [_named(unknown, "there, and no part of the model")] if unknown else []
    text = text_section(checkpoint.config)
    raise CheckpointError(
        f"the weights in {checkpoint.folder} are not those of the model in its config.json: {'; '.join(parts)}.\n"
        f"  Expected the tensors of model_type {text.get('model_type')!r} with num_hidden_layers "
        f"{text.get('num_hidden_layers')}, by the names that transformers saves them under.\n"
        "  Random numbers would stand in for what is missing. Fetch config.json and weights of one model again; a prefix "
        "of every name, such as _orig_mod., comes from saving a wrapped model: save the one inside."
    )


def left_over(stored: Iterable[str], wanted: Collection[str]) -> list[str]:
    """The names of stored tensors that no model of these names has, and that hold more than its config says anyway.

    >>> left_over(["a.weight", "h.0.attn.masked_bias", "model.layers.0.self_attn.rotary_emb.inv_freq", "b"], {"b"})
    ['a.weight']
    """
    return sorted(name for name in stored if name not in wanted and not _COMPUTED.search(name))


def _named(names: list[str], what: str) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{', '.join(names[:SHOWN])}{more} {'is' if len(names) == 1 else 'are'} {what}"
