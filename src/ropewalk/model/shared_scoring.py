"""Scoring of texts that are too long for one device: the ranks of a group hold a stretch of the tokens each.

The weights are divided over the group too, and gathered a layer at a time. A text goes through once, whole, by Ulysses:
no rank holds keys and values of more than one layer, nor of more than its heads. What texts have in common is computed
for each of them.

Shape letters: B batch, L length, R scored tokens, r of them in this rank's stretch.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ropewalk.checkpoint.folder import Checkpoint
from ropewalk.errors import RankError
from ropewalk.model.lean import INPUT
from ropewalk.model.load import LoadedModel, chosen_device, chosen_dtype
from ropewalk.model.ranked import divided, lean_over, load_hollow, no_shared_rows
from ropewalk.model.ranks import SEQUENCE, Ranks
from ropewalk.model.scoring import CHUNK_NUMBERS, Scored, Scorer, losses_of
from ropewalk.model.sharding import Sharded
from ropewalk.model.ulysses import SharedRows, Ulysses


def load_shared(
    checkpoint: Checkpoint, ranks: Ranks, *, dtype: str | None, device: str | None
) -> tuple[LoadedModel, Sharded, Ranks]:
    """As `load_model`, its weights divided over the ranks that share a sequence, which come with it."""
    assert ranks.mesh is not None
    group = Ranks(ranks.mesh[SEQUENCE])
    stored = str(chosen_dtype(dtype, chosen_device(device))).removeprefix("torch.")
    loaded = load_hollow(checkpoint, dtype=stored, device=device)
    weights = divided(loaded, group)
    loaded.model.eval()
    return loaded, weights, group


class SharedScorer(Scorer):
    """A scorer of which every rank of a group has one: all must ask the same, and get the same.

    Raises RankError for a model that the lean engine does not know, whose rotation changes with the length of the text,
    or whose heads the ranks cannot share.
    """

    def __init__(self, loaded: LoadedModel, weights: Sharded, group: Ranks, batch_tokens: int):
        assert group.line is not None
        self.model, self.device, self.lean = loaded.model, loaded.device, None
        self.batch_tokens = batch_tokens
        if not self.is_static:
            raise RankError(
                f"{loaded.checkpoint.folder} turns positions by the length of the text (dynamic NTK, LongRoPE).\n"
                "  Ranks that share a text compute it once, by the rotation of one length.\n"
                "  Leave --sequence-parallel out."
            )
        engine = lean_over(self.model, weights, group, self.model.dtype, group.count)
        if engine is None:
            raise no_shared_rows(self.model, group.count)
        engine.keeps = [INPUT] * len(engine.keeps)
        self.engine, self.rows = engine, SharedRows(group.line.get_group())

    def target_losses(self, windows: Sequence[Sequence[int]], targets: Sequence[range]) -> Tensor:
        """As `Scorer.target_losses`."""
        tokens_BL = torch.tensor(windows, device=self.device)[:, : targets[-1].stop]
        losses_BR, _ = self._together(tokens_BL, torch.cat([torch.arange(r.start, r.stop) for r in targets]))
        for row, window in zip(losses_BR, windows, strict=True):
            self._require_finite(row, window)
        return losses_BR

    def each_prompt(
        self, prompts: Sequence[Sequence[int]], scored: Sequence[int], skip: Callable[[int], bool] = lambda index: False
    ) -> Iterator[tuple[int, Scored]]:
        """As `Scorer.each_prompt`, in the order they are given."""
        for index, (tokens, count) in enumerate(zip(prompts, scored, strict=True)):
            if skip(index):
                continue
            tokens_BL = torch.tensor([list(tokens)], device=self.device)
            losses_BR, greedy_BR = self._together(tokens_BL, torch.arange(len(tokens) - count, len(tokens)))
            self._require_finite(losses_BR[0], tokens)
            yield index, Scored(losses_BR[0], greedy_BR[0])

    @torch.inference_mode(False)  # FSDP2 writes to weights in place, which those made there do not bear
    @torch.no_grad()
    def _together(self, tokens_BL: Tensor, wanted_R: Tensor) -> tuple[Tensor, Tensor]:
        """Losses of the tokens at these places, and whether each was the most likely; (B, R) on the CPU, on every rank."""
        inputs_BL, wanted_R = tokens_BL[:, :-1], wanted_R.to(self.device)
        own_BS = self.rows.stretch(inputs_BL)
        places_R = wanted_R - 1 - self.rows.number * own_BS.shape[1]
        mine_R = (places_R >= 0) & (places_R < own_BS.shape[1])
        found_2BR = torch.zeros(2, len(tokens_BL), len(wanted_R), device=self.device)
        positions = self.rows.positions(torch.arange(inputs_BL.shape[1], device=self.device).expand(inputs_BL.shape))
        with self.engine.weights.gathered(self.model):
            hidden = self.engine.hidden(own_BS, positions, Ulysses(self.engine.kernel, self.rows.group))
            found_2BR[:, :, mine_R] = self._chosen(hidden[:, places_R[mine_R]], tokens_BL[:, wanted_R[mine_R]])
        dist.all_reduce(found_2BR, group=self.rows.group)  # each is one rank's, and 0 on all others
        losses_BR, greedy_BR = found_2BR.cpu()
        return losses_BR, greedy_BR > 0

    def _chosen(self, hidden: Tensor, chosen_Br: Tensor) -> Tensor:
        """(2, B, r): losses of the chosen tokens, and 1 where they are the most likely."""
        head: Any = self.model.get_output_embeddings()
        numbers = CHUNK_NUMBERS.get(self.device.type, CHUNK_NUMBERS["cpu"])
        step = max(1, numbers // (head.weight.shape[0] * len(hidden)))
        found_2Br = torch.empty(2, *chosen_Br.shape, device=self.device)
        for start in range(0, hidden.shape[1], step):
            logits, part = head(hidden[:, start : start + step]), chosen_Br[:, start : start + step]
            found_2Br[0, :, start : start + step] = losses_of(logits, part)
            found_2Br[1, :, start : start + step] = logits.argmax(-1) == part
        return found_2Br
