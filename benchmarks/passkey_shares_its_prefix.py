"""32 distances x 10 keys cost little more than the longest prompt: prompts share their beginnings, answers their pass.

Against greedy generation of each prompt, with a key-value cache and without one (as LongLoRA and PoSE do it): the same
model and prompts, and the same verdict on every prompt, checked first. Without a cache every answer token is a forward
pass over the whole prompt, so only some prompts are timed and their time scaled to all (`--uncached-prompts`).
"""

import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from paired import options, printed, random_llama

from ropewalk.evals.passkey import Cell, grid, measured_hits, near_start_grid
from ropewalk.evals.pieces import Pieces
from ropewalk.model.scoring import Scorer
from ropewalk.progress import silent
from ropewalk.text.retrieval import PasskeyDocument

VOCABULARY = 4096


class Codec:
    """Words as tokens, by a hash; a number is a token for the space before it and one a digit, as LLaMA's tokenizer has
    it, so an answer is six tokens. What the text says does not matter to a random model."""

    bos = (1,)

    def encode(self, text: str) -> list[int]:
        ids: list[int] = []
        for word in text.split():
            pieces = [" ", *word.strip(".")] if word.strip(".").isdigit() else [word]
            ids += [5 + sum(ord(c) * 31**i for i, c in enumerate(piece)) % (VOCABULARY - 5) for piece in pieces]
        return ids


@torch.inference_mode()
def generated(model: torch.nn.Module, document: PasskeyDocument, *, cached: bool) -> bool:
    tokens = torch.tensor([document.prompt])
    written = model.generate(
        tokens,
        attention_mask=torch.ones_like(tokens),
        max_new_tokens=len(document.answer),
        do_sample=False,
        use_cache=cached,
        pad_token_id=0,
        eos_token_id=None,
    )
    return tuple(written[0, tokens.shape[1] :].tolist()) == document.answer


def ours(scorer: Scorer, cells: Sequence[Cell]) -> list[bool]:
    """The verdicts by what `ropewalk evaluate` runs, its pieces on disk included."""
    with tempfile.TemporaryDirectory() as folder:
        pieces = Pieces(Path(folder) / "pieces.jsonl")
        measured_hits(scorer, cells, "passkey", pieces, silent)
        return [pieces[f"passkey/{n}/{m}"] for n, cell in enumerate(cells) for m in range(len(cell.documents))]


def with_known_answers(model: torch.nn.Module, cells: Sequence[Cell]) -> list[Cell]:
    """Every other answer replaced by what the model writes, so that both verdicts occur."""
    import dataclasses

    changed = []
    for cell in cells:
        documents = list(cell.documents)
        for place in range(0, len(documents), 2):
            one = documents[place]
            tokens = torch.tensor([one.prompt])
            with torch.inference_mode():
                written = model.generate(
                    tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=len(one.answer), do_sample=False,
                    pad_token_id=0, eos_token_id=None,
                )  # fmt: skip
            documents[place] = dataclasses.replace(one, answer=tuple(written[0, tokens.shape[1] :].tolist()))
        changed.append(Cell(cell.indices, tuple(documents)))
    return changed


def timed(work) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def main() -> int:
    parser = options(__doc__ or "", pairs=3)
    parser.add_argument("--target", type=int, default=2048)
    parser.add_argument("--uncached-prompts", type=int, default=32, help="how many are timed without a cache")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    model = random_llama(VOCABULARY)
    scorer, met = Scorer(model), True
    for name, layout, goal_cached, goal_uncached in (
        ("paper_layout", grid, 1.5, 9.0),
        ("key_near_the_start", near_start_grid, 10.0, 60.0),
    ):
        cells = with_known_answers(model, layout(Codec(), given.target, 0))  # type: ignore[arg-type]
        documents = [document for cell in cells for document in cell.documents]
        sample = documents[:: max(1, len(documents) // given.uncached_prompts)]
        mine = ours(scorer, cells)
        if mine != [generated(model, d, cached=True) for d in documents]:
            print(f"unequal verdicts: {name}")
            return 1
        if len(set(mine)) < 2:
            print(f"every verdict is {mine[0]}: nothing was compared")
            return 1
        share = sum(len(d.prompt) for d in sample) / sum(len(d.prompt) for d in documents)
        cached: list[float] = []
        uncached: list[float] = []
        fast: list[float] = []
        for _ in range(given.pairs):
            cached.append(timed(lambda documents=documents: [generated(model, d, cached=True) for d in documents]))
            fast.append(timed(lambda cells=cells: ours(scorer, cells)))
            uncached.append(timed(lambda sample=sample: [generated(model, d, cached=False) for d in sample]) / share)
        for kind, slow, goal in (("cached", cached, goal_cached), ("uncached", uncached, goal_uncached)):
            ratio = [a / b for a, b in zip(slow, fast, strict=True)]
            met &= printed(f"{name}_against_{kind}_generation", (ratio, slow, fast), goal)
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
