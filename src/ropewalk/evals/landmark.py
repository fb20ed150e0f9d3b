"""Landmark Attention's own passkey (arXiv 2305.16300): an integer of 1 to 50000 anywhere in a prompt of one length.

Fifty prompts, decoded greedily; the first integer in what the model writes is its answer. Keys have one to five digits,
so chance and difficulty vary from prompt to prompt: offered to stand beside published figures, not as the better test.
"""

import random
import re
from collections.abc import Sequence
from typing import Any

import torch
from transformers import GenerationConfig, StoppingCriteria, StoppingCriteriaList

from ropewalk.errors import DataError
from ropewalk.evals.passkey import share_row
from ropewalk.evals.pieces import Pieces
from ropewalk.model.generation import bare_generation
from ropewalk.model.load import LoadedModel, TextCodec
from ropewalk.progress import Progress
from ropewalk.record import EvalResult
from ropewalk.text.retrieval import PasskeyDocument, PasskeyWriter, is_evaluation_key

NAME = "passkey-landmark"
PROMPTS = 50
LARGEST = 50_000
WRITTEN = 100  # tokens at most
PROTOCOL = "Landmark's passkey: integer of 1 to 50000 anywhere, 50 prompts, first integer of 100 tokens, greedy"
INTEGER = re.compile(r"\d+")


def landmark_documents(codec: TextCodec, target: int, seed: int) -> list[PasskeyDocument]:
    """Fifty documents whose prompt and answer are exactly `target` tokens. Raises DataError when they do not fit."""
    writer = PasskeyWriter(codec, bos=codec.bos)
    rng = random.Random(f"{seed}/{target}/landmark")
    made = []
    while len(made) < PROMPTS:
        key = str(rng.randint(1, LARGEST))
        if not is_evaluation_key(f"{int(key):05d}"):
            continue
        nearest, furthest = writer.distances(key, target)
        if furthest < nearest:
            raise DataError(
                f"a passkey document does not fit into {target} tokens.\n"
                f"  Its fixed parts alone are {writer.shortest(key)} tokens with this tokenizer.\n"
                f"  Give a longer --lengths, or leave {NAME} out of --tasks."
            )
        made.append(writer.document(key, target, rng.randint(nearest, furthest)))
    return made


def measured_landmark(
    loaded: LoadedModel, documents: Sequence[PasskeyDocument], target: int, pieces: Pieces, progress: Progress
) -> list[EvalResult]:
    """One accuracy row; its `length` is that of the prompts."""
    names = [f"{NAME}/{target}/{index}" for index in range(len(documents))]
    todo = pieces.todo(names)
    with progress.bar(NAME, len(documents), done=len(names) - len(todo)) as bar:
        for name, document in zip(names, documents, strict=True):
            if name in todo:
                pieces.add(name, first_integer(loaded, document.prompt) == int(document.key))
                bar.advance()
    pieces.meet()
    hits = sum(pieces[name] for name in names)
    details = {"distances": [document.distance for document in documents], "beyond_window": target > loaded.window}
    return [share_row(NAME, PROTOCOL, target, hits, len(documents), details)]


def first_integer(loaded: LoadedModel, prompt: Sequence[int]) -> int | None:
    """The first integer that greedy decoding writes after the prompt; None where it writes none."""

    class Whole(StoppingCriteria):
        """Stops when an integer is followed by something else."""

        def __call__(self, input_ids: torch.Tensor, scores: Any, **_: object) -> Any:
            found = INTEGER.search(text := loaded.codec.decode(input_ids[0, len(prompt) :].tolist()))
            done = found is not None and found.end() < len(text)
            return torch.full((1,), done, dtype=torch.bool, device=input_ids.device)

    model: Any = loaded.model
    tokens = torch.tensor([list(prompt)], device=loaded.device)
    greedy = GenerationConfig(max_new_tokens=WRITTEN, do_sample=False, pad_token_id=0)
    with torch.inference_mode(), bare_generation(model):
        written = model.generate(
            tokens,
            attention_mask=torch.ones_like(tokens),
            generation_config=greedy,
            stopping_criteria=StoppingCriteriaList([Whole()]),
        )
    found = INTEGER.search(loaded.codec.decode(written[0, len(prompt) :].tolist()))
    return int(found.group()) if found else None
