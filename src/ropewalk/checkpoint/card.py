"""The model card of an extended or tuned checkpoint, and of an adapter."""

import json
from dataclasses import replace
from typing import Any

from ropewalk.checkpoint.folder import Checkpoint
from ropewalk.checkpoint.position_table import LearnedTable
from ropewalk.rope.methods import TABLE_METHOD
from ropewalk.rope.scalings import Unscaled
from ropewalk.rope.spec import RopeSpec, Window

CARD = "README.md"

_METHOD_NAMES = {
    "pi": "Position Interpolation (arXiv 2306.15595)",
    "ntk": "NTK-aware scaling (theta raised)",
    "by-parts": "NTK-by-parts (arXiv 2309.00071)",
    "yarn": "YaRN (arXiv 2309.00071)",
    "llama3": "the scaling of Llama 3.1",
    "abf": "an adjusted base frequency (arXiv 2309.16039)",
    "longrope": "one divisor a rotary pair (LongRoPE, arXiv 2402.13753)",
    "freeze": "dynamic NTK made static",
    "none": "no rescaling: only the declared window grew",
    "interpolate-table": "its learned table of positions resampled along straight lines",
}


_CHANGED = """No weight was added and the architecture is the base model's, so any runtime that
reads its `config.json` loads it."""
_CHANGED_TABLE = """The table has more rows; the architecture and all other weights are the base
model's, so any runtime that reads its `config.json` loads it."""
_NOTE = """`config.json` says the rotation twice, for transformers 5 (`rope_parameters`) and for everything older
(`rope_theta`, `rope_scaling`); the two agree."""
_TABLE_NOTE = """Beyond the resampled window there is no row: stock transformers ends with an index error there."""


def card(
    base: str,
    method: str,
    before: RopeSpec | LearnedTable,
    after: RopeSpec | LearnedTable,
    tuning: str | None = None,
) -> str:
    """Markdown with the hub's metadata on top. `tuning` says in a sentence how it was tuned; None if it was not."""
    state = tuning or (
        "**Not tuned yet**: the weights are the base model's. Expect worse text at every length until it is tuned."
    )
    return f"""---
base_model: {json.dumps(base)}
library_name: transformers
pipeline_tag: text-generation
tags: [ropewalk, long-context]
---

# {base}, window {before.window.original} → {after.window.target}

The context window of `{base}` was lengthened from {before.window.original} to {after.window.target} tokens with
{_METHOD_NAMES.get(method, method)}. {_CHANGED_TABLE if isinstance(after, LearnedTable) else _CHANGED}

{state}

| | positions |
|---|---|
| base | {before.in_words()} |
| here | {after.in_words()} |

{_TABLE_NOTE if isinstance(after, LearnedTable) else _NOTE} How this folder was made is in `run.json`.
"""


def tuned_card(checkpoint: Checkpoint, subject: dict[str, Any], tuning: str) -> str:
    """The card of a checkpoint that was tuned from this one, which may itself be extended; `subject` says by what."""
    window = Window(subject["original"], subject["original"])
    if checkpoint.table is not None:
        before = replace(checkpoint.table, window=window)
        after = replace(checkpoint.table, window=Window(window.original, checkpoint.window.target))
        return card(subject["name"], subject["method"] or TABLE_METHOD, before, after, tuning)
    rope = checkpoint.rope
    theta = subject["theta"] or rope.theta  # an older record may not tell the base's
    unscaled = replace(rope, window=window, theta=theta, scaling=Unscaled())
    return card(subject["name"], subject["method"] or "none", unscaled, rope, tuning)


def adapter_card(name: str, base: str, rope: RopeSpec | LearnedTable, tuning: str) -> str:
    """Markdown for a peft adapter folder that is laid over the model at `base`, whose window it was tuned at."""
    return f"""---
base_model: {json.dumps(base)}
library_name: peft
pipeline_tag: text-generation
tags: [ropewalk, long-context, lora]
---

# {name}, an adapter for a window of {rope.window.target}

These are the weights that tuning changed, and not a whole model: load them over the one they were trained on, whose
`config.json` has its positions ({rope.in_words()}) and whose tokenizer is theirs.

```python
from peft import PeftModel
from transformers import AutoModelForCausalLM

base = AutoModelForCausalLM.from_pretrained({json.dumps(base)})
model = PeftModel.from_pretrained(base, "path/to/this/folder")
```

{tuning}

`model.merge_and_unload()` makes one model of the two; load the base with `dtype="float32"` before it does, or small
changes are rounded away. How this folder was made is in `run.json`.
"""
