"""Sequence parallelism: the ranks of a group hold a stretch of each row's tokens, and each attends with some of the heads.

Everything but attention is a token's own. Around attention an all-to-all turns (all heads, own tokens) into (own heads,
all tokens) and back: Ulysses (DeepSpeed-Ulysses, arXiv 2309.14509, 3). Keys and values of too few heads for all ranks
are repeated, each for as many ranks as need it. Nothing is masked or approximated, so gradients are those of one rank.

Shape letters: B batch, H heads of queries, K heads of keys, S tokens of the row, s of this rank, D head dimension, N ranks.
"""

import math
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.functional import pad

from ropewalk.errors import RankError
from ropewalk.model.attention import Kernel, State


class Ulysses:
    """A kernel over the rows of a group, (B, H, s, D) from this rank's tokens; `kernel` sees the whole row."""

    def __init__(self, kernel: Kernel, group: Any):
        self.kernel, self.group = kernel, group
        self.ranks = dist.get_world_size(group)
        self.name = f"{kernel.name} over {self.ranks} ranks"

    def forward(self, query: Tensor, keys: Tensor, values: Tensor, scale: float) -> tuple[Tensor, State]:
        whole = [self._to_heads(part) for part in (query, *self._repeated(query, keys, values))]
        out, state = self.kernel.forward(whole[0], whole[1], whole[2], scale)
        return self._to_tokens(out), state

    def backward(
        self, grad: Tensor, query: Tensor, keys: Tensor, values: Tensor, out: Tensor, state: State, scale: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        heads = keys.shape[1]
        whole = [self._to_heads(part) for part in (grad, query, *self._repeated(query, keys, values), out)]
        grads = self.kernel.backward(whole[0], whole[1], whole[2], whole[3], whole[4], state, scale)
        del whole
        query_grad, *rest = (self._to_tokens(part) for part in grads)
        keys_grad, values_grad = (
            part if part.shape[1] == heads else part.unflatten(1, (heads, -1)).sum(2) for part in rest
        )
        return query_grad, keys_grad, values_grad

    def _repeated(self, query: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of the least number of heads that ranks can share out; it divides that of the queries."""
        heads = keys.shape[1]
        times = math.lcm(heads, self.ranks) // heads
        if times == 1:
            return keys, values
        return keys.repeat_interleave(times, dim=1), values.repeat_interleave(times, dim=1)

    def _to_heads(self, own: Tensor) -> Tensor:
        """(B, H, s, D) -> (B, H / N, S, D)."""
        parts_NBHSD = torch.stack(own.chunk(self.ranks, dim=1))
        return self._exchanged(parts_NBHSD).permute(1, 2, 0, 3, 4).flatten(2, 3)

    def _to_tokens(self, whole: Tensor) -> Tensor:
        """(B, H / N, S, D) -> (B, H, s, D)."""
        parts_NBHSD = torch.stack(whole.chunk(self.ranks, dim=2))
        return self._exchanged(parts_NBHSD).permute(1, 0, 2, 3, 4).flatten(1, 2)

    def _exchanged(self, parts: Tensor) -> Tensor:
        """Part n goes to rank n, and what comes from rank n is part n."""
        got = torch.empty_like(parts)
        dist.all_to_all_single(got, parts, group=self.group)
        return got


class SharedRows:
    """The stretch of each row that is this rank's."""

    def __init__(self, group: Any):
        self.group = group
        self.ranks, self.number = dist.get_world_size(group), dist.get_rank(group)

    def stretch(self, values_BS: Tensor, *, repeat_last: bool = False) -> Tensor:
        """(B, s), s the same for all ranks: behind the last token stand zeros, or the last value again.

        Nothing sees what stands there, for it comes last, and its share of the loss is 0.
        """
        short = -values_BS.shape[1] % self.ranks
        if short and repeat_last:
            values_BS = torch.cat([values_BS, values_BS[:, -1:].expand(-1, short)], dim=1)
        elif short:
            values_BS = pad(values_BS, (0, short))
        return values_BS.chunk(self.ranks, dim=1)[self.number].contiguous()

    def positions(self, positions_BS: Tensor) -> Tensor:
        """(B, s + 1): this rank's positions, and the last of the row, by which dynamic scalings know how far it reaches."""
        return torch.cat([self.stretch(positions_BS, repeat_last=True), positions_BS[:, -1:]], dim=1)


def require_heads(query_heads: int, ranks: int) -> None:
    """Raises RankError when the heads of queries cannot be shared out."""
    if query_heads % ranks:
        fitting = [str(count) for count in range(1, query_heads + 1) if query_heads % count == 0]
        raise RankError(
            f"--sequence-parallel {ranks} does not divide the {query_heads} heads of queries of this model.\n"
            "  Ranks that share a sequence divide the heads of attention among them.\n"
            f"  Give one of {', '.join(fitting)}."
        )
