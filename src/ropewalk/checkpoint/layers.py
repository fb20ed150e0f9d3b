"""Whether as many layers are stored as config.json counts, by the names in the headers: what can be told without torch.

Loading the model finds more (`model.fit`); this is for verbs that load none, and for families whose names are known.
"""

import re

from ropewalk.checkpoint.folder import Checkpoint
from ropewalk.checkpoint.rope_blocks import text_section
from ropewalk.errors import CheckpointError
from ropewalk.reading import shown

KNOWN = frozenset(("llama", "mistral", "qwen2", "qwen3", "smollm3", "olmo2", "gemma", "gemma2", "phi3"))
_LAYER = re.compile(r"(?P<prefix>.*?)(?P<model>model\.)?layers\.(?P<number>\d{1,9})\.")


def require_layers(checkpoint: Checkpoint) -> None:
    """Raises CheckpointError for layers that are missing, left over, or stored under a name that the family has not.

    A model of another family, one that does not say how many layers it has, and one of whose names none is that of a layer
    are let pass.
    """
    text = text_section(checkpoint.config)
    layers = text.get("num_hidden_layers")
    if text.get("model_type") not in KNOWN or not isinstance(layers, int):
        return
    found = [match for own in checkpoint.tensors.values() for one in own if (match := _LAYER.match(one.name))]
    prefixes = sorted({match["prefix"] for match in found})
    if any(prefixes):
        raise _refused(
            checkpoint, f"names of its layers begin with {shown(prefixes[-1])}, as of a model that was wrapped"
        )
    numbers = {int(match["number"]) for match in found}
    if numbers and (len(numbers) != layers or max(numbers) != layers - 1):
        raise _refused(checkpoint, f"{len(numbers)} layers are stored, the last number {max(numbers)}")


def _refused(checkpoint: Checkpoint, what: str) -> CheckpointError:
    text = text_section(checkpoint.config)
    return CheckpointError(
        f"the weights in {checkpoint.folder} are not those of the model in its config.json: {what}.\n"
        f"  Expected the layers of model_type {text['model_type']!r} with num_hidden_layers {text['num_hidden_layers']}, "
        "model.layers.0 and so on.\n"
        "  Fetch config.json and weights of one model again; of a wrapped model, save the one inside."
    )
