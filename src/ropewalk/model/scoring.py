"""Evaluation forward passes: losses of chosen targets, and answers checked without generating them.

Exact: causal models with static rotation. Logits exist for scored rows only, a chunk at a time. Models of the Llama
family go through `LeanForward`, after its logits were seen to equal the stock model's, and share what prompts have in
common; all others go through the stock forward, one prompt's work for each prompt.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ropewalk.errors import DataError
from ropewalk.model.budget import batch_tokens_for, reckoned_bytes_a_token
from ropewalk.model.finite import first_not_finite
from ropewalk.model.head import BodyAndHead
from ropewalk.model.layers import KeyValues, LeanForward
from ropewalk.model.prefixes import Keep, Score, deepest, walk, widest
from ropewalk.model.view import layer_view

# B batch, L length, R scored rows, V vocabulary
CHUNK_NUMBERS = {
    "cpu": 2**22,
    "cuda": 2**26,
}  # float32 logits held at once: 16 MiB, and 256 where reading the head costs
PROBE = 24  # tokens


@dataclass(frozen=True)
class Scored:
    """The last tokens of one prompt: their losses in nats, and whether each was the most likely token; both (R,)."""

    losses: Tensor
    greedy: Tensor


class Scorer:
    """Scores tokens with one model. At most `batch_tokens` tokens are in one forward pass (None: what memory bears)."""

    def __init__(self, model: PreTrainedModel, batch_tokens: int | None = None):
        self.model = model
        self.parts = BodyAndHead(model)
        self.device = next(model.parameters()).device
        view = layer_view(model) if self.parts.is_plain and self.is_static else None
        self.lean = None if view is None else LeanForward(model, view)
        if self.lean is not None and not self._lean_equals_stock(self.lean):
            self.lean = None
        self.batch_tokens = batch_tokens or batch_tokens_for(model)

    @property
    def is_static(self) -> bool:
        """Whether a window's beginning is scored as a shorter window would be."""
        return has_static_rotation(self.model)

    @torch.inference_mode()
    def target_losses(self, windows: Sequence[Sequence[int]], targets: Sequence[range]) -> Tensor:
        """Negative log-likelihood in nats of the targets of each window, (B, R) float32, on the CPU.

        The windows are of one length L; `targets` are disjoint ranges in order within 1 .. L - 1, since the first token
        of a window has no context. Raises DataError when a loss is not finite.
        """
        tokens_BL = torch.tensor(windows, device=self.device)
        wanted = [range(r.start - 1, r.stop - 1) for r in targets]
        chosen_BR = torch.cat([tokens_BL[:, r.start : r.stop] for r in targets], dim=1)
        losses_BR = self._judged(self._read(tokens_BL, targets[-1].stop - 1), wanted, chosen_BR)[0].cpu()
        for row, window in zip(losses_BR, windows, strict=True):
            self._require_finite(row, window)
        return losses_BR

    @torch.inference_mode()
    def prompts(self, prompts: Sequence[Sequence[int]], scored: Sequence[int]) -> list[Scored]:
        """The last `scored[i]` tokens of each prompt as targets, on the CPU. A prompt's first token cannot be one.

        What prompts have in common at their beginnings is computed once. Greedy decoding after the prompt would write
        its last tokens if and only if each of them is the most likely one after the tokens before it (induction over
        the tokens): one forward pass decides what generation would take a pass a token for.
        """
        results: dict[int, Scored] = dict(self.each_prompt(prompts, scored))
        return [results[index] for index in range(len(results))]

    @torch.inference_mode()
    def each_prompt(
        self, prompts: Sequence[Sequence[int]], scored: Sequence[int], skip: Callable[[int], bool] = lambda index: False
    ) -> Iterator[tuple[int, Scored]]:
        """The same, one after the other as they are done, with their places; in an order of the walk's own.

        Passes whose prompts are all to `skip` are left out. The passes themselves do not depend on what is skipped, so
        a stopped run that goes on gives the same numbers to the last bit.
        """
        lists = [tokens if isinstance(tokens, list) else list(tokens) for tokens in prompts]
        if any(not 0 < count < len(tokens) for tokens, count in zip(lists, scored, strict=True)):
            raise DataError("a prompt needs at least one token before those that are scored, and one that is scored.")
        shareable = [len(tokens) - count - 1 if self.lean else 0 for tokens, count in zip(lists, scored, strict=True)]
        longest = max((len(tokens) for tokens in lists), default=0)
        steps = list(walk(lists, shareable, lanes=self._lanes(longest)))
        room = longest if longest > self.batch_tokens else deepest(steps)  # long prompts end in the buffer too
        held = self.lean.buffer(room, widest(steps)) if self.lean else None
        path: list[Keep] = []  # the stretches that lead to where the walk is
        written = 0  # how many of them are in the buffer
        for step in steps:
            while path and path[-1].end > step.start:
                path.pop()
            written = min(written, len(path))
            if isinstance(step, Keep):
                path.append(step)
                continue
            for lanes, batch in self._batches(step, lists):
                if all(map(skip, batch)):
                    continue
                for stretch in path[written:]:
                    self._extend(held, lists, stretch)
                written = len(path)
                if held is not None:
                    held.crop(step.start)
                    held.lanes = lanes
                yield from zip(batch, self._scored(batch, lists, scored, held), strict=True)

    def _read(self, tokens_BL: Tensor, needed: int) -> Tensor:
        """What goes through the model: what is needed, or, where rotation depends on the length, the whole window.

        transformers' dynamic rotation stays at the longest input it has met until a short one comes: one goes first.
        """
        if self.is_static:
            return tokens_BL[:, :needed]
        self.model(tokens_BL[:, :1], use_cache=False)
        return tokens_BL

    def _lanes(self, longest: int) -> int:
        """How many texts may be held side by side: what they take is no more than one pass takes."""
        if self.lean is None or not longest:
            return 1
        allowed = self.batch_tokens * reckoned_bytes_a_token(self.model) // self.lean.held_bytes
        return max(1, allowed // longest)

    def _extend(self, held: KeyValues | None, lists: Sequence[Sequence[int]], stretch: Keep) -> None:
        assert self.lean is not None and held is not None
        held.crop(stretch.start)
        held.spread(len(stretch.prompts))
        size = max(1, self.batch_tokens // len(stretch.prompts))
        for start in range(stretch.start, stretch.end, size):
            chunk = [lists[index][start : min(start + size, stretch.end)] for index in stretch.prompts]
            self.lean.rows(torch.tensor(chunk, device=self.device), [], held, keep=True)

    def _batches(self, step: Score, lists: Sequence[Sequence[int]]) -> list[tuple[range, list[int]]]:
        """Lanes, and prompts that come after them in one pass.

        Prompts of like lengths are together: the shorter ones are filled up behind their ends, where nothing looks. The
        stock forward may do something else at another length, so there only equal lengths go together.
        """
        sizes = [len(lists[index]) - step.start for index in step.lanes[0]]
        copied = 0 if self.device.type == "cpu" else step.start  # elsewhere each text has a copy of what is held
        groups: list[list[int]] = []
        for place in sorted(range(len(sizes)), key=lambda place: sizes[place]):
            own = sizes[place]
            if groups:
                shortest = sizes[groups[-1][0]]
                alike = 4 * shortest >= 3 * own - 64 if self.lean else shortest == own
                if alike and (len(groups[-1]) + 1) * len(step.lanes) * (own + copied) <= self.batch_tokens:
                    groups[-1].append(place)
                    continue
            groups.append([place])
        batches: list[tuple[range, list[int]]] = []
        for group in groups:
            at_once = max(1, self.batch_tokens // (len(group) * (sizes[group[-1]] + copied)))
            for first in range(0, len(step.lanes), at_once):
                lanes = range(first, min(first + at_once, len(step.lanes)))
                batches.append((lanes, [step.lanes[lane][place] for lane in lanes for place in group]))
        return batches

    def _scored(
        self, batch: Sequence[int], lists: Sequence[Sequence[int]], scored: Sequence[int], held: KeyValues | None
    ) -> list[Scored]:
        shared = held.length if held is not None else 0
        own = [lists[i][shared:] for i in batch]
        longest = max(map(len, own))
        tokens_BL = torch.tensor([[*tokens, *[0] * (longest - len(tokens))] for tokens in own], device=self.device)
        first = min(len(tokens) - scored[i] for i, tokens in zip(batch, own, strict=True))
        losses, best = self._judged(
            self._read(tokens_BL, longest - 1),
            [range(first - 1, longest - 1)],
            tokens_BL[:, first:],
            held if shared else None,
            argmax=True,
        )
        losses, greedy = losses.cpu(), (best == tokens_BL[:, first:]).cpu()
        cuts = [
            slice(len(tokens) - scored[i] - first, len(tokens) - first) for i, tokens in zip(batch, own, strict=True)
        ]
        for i, row, cut in zip(batch, losses, cuts, strict=True):
            self._require_finite(row[cut], lists[i])
        return [Scored(row[cut], hit[cut]) for row, hit, cut in zip(losses, greedy, cuts, strict=True)]

    def _judged(
        self,
        inputs_BL: Tensor,
        wanted: Sequence[range],
        chosen_BR: Tensor,
        held: KeyValues | None = None,
        *,
        argmax: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Losses of the chosen tokens after the wanted rows, and with `argmax` the most likely tokens there."""
        head = self.parts.head
        if not self.parts.is_plain or head is None:
            kept = torch.cat([torch.arange(r.start, r.stop, device=self.device) for r in wanted])
            logits = self.model(inputs_BL, logits_to_keep=kept, use_cache=False).logits
            if logits.shape[1] != len(kept):  # a family that keeps all logits, whatever is asked for
                logits = logits[:, kept]
            return losses_of(logits, chosen_BR), logits.argmax(-1) if argmax else chosen_BR
        hidden = self._hidden(inputs_BL, wanted, held)
        numbers = CHUNK_NUMBERS.get(self.device.type, CHUNK_NUMBERS["cpu"])
        step = max(1, numbers // (head.weight.shape[0] * len(inputs_BL)))
        # made before the loop: small tensors that outlive a chunk would lie in the way of the next chunk's large ones
        losses = torch.empty(chosen_BR.shape, dtype=torch.float32, device=self.device)
        best = torch.empty_like(chosen_BR) if argmax else chosen_BR
        for start in range(0, hidden.shape[1], step):
            logits = head(hidden[:, start : start + step])
            losses[:, start : start + step] = losses_of(logits, chosen_BR[:, start : start + step])
            if argmax:
                best[:, start : start + step] = logits.argmax(-1)
        return losses, best

    def _hidden(self, inputs_BL: Tensor, wanted: Sequence[range], held: KeyValues | None) -> Tensor:
        if self.lean is None:
            hidden = self.parts.hidden(inputs_BL)
            return torch.cat([hidden[:, r.start : r.stop] for r in wanted], dim=1)
        if len(inputs_BL) > 1 or inputs_BL.shape[1] <= self.batch_tokens:
            return self.lean.rows(inputs_BL, wanted, held)
        return self._in_chunks(self.lean, inputs_BL, wanted, held)

    def _in_chunks(
        self, lean: LeanForward, inputs_BL: Tensor, wanted: Sequence[range], held: KeyValues | None
    ) -> Tensor:
        """A text too long for one pass, piece after piece into the buffer, which is left as it was found."""
        length = inputs_BL.shape[1]
        buffer = lean.buffer(length) if held is None else held
        before, parts = buffer.length, []
        for start in range(0, length, self.batch_tokens):
            stop = min(start + self.batch_tokens, length)
            rows = [range(max(r.start, start) - start, min(r.stop, stop) - start) for r in wanted]
            parts.append(lean.rows(inputs_BL[:, start:stop], [r for r in rows if len(r)], buffer, keep=True))
        buffer.crop(before)
        return torch.cat(parts, dim=1)

    def _require_finite(self, losses: Tensor, tokens: Sequence[int]) -> None:
        if bool(losses.isfinite().all()):
            return
        raise DataError(
            f"the model gives a loss that is not a finite number, in a text of {len(tokens)} tokens: "
            f"{self._where_it_breaks(tokens)}.\n"
            "  Weights that are broken, or a dtype too small for them, do this.\n"
            "  Try --dtype float32; if it stays, fetch the checkpoint again."
        )

    @torch.no_grad()
    def _where_it_breaks(self, tokens: Sequence[int]) -> str:
        """The first layer and position that are not finite, found in the stock forward."""
        text_BL = torch.tensor([list(tokens)], device=self.device)
        try:
            states = self.model(text_BL, output_hidden_states=True, use_cache=False).hidden_states or ()
        except RuntimeError:  # no room for the states of all layers
            return "the text is too long to look for the layer"
        for depth, hidden in enumerate(states):
            broken = (~hidden.isfinite()).any(-1)[0].nonzero()
            if len(broken):
                place = "the embedding" if depth == 0 else f"layer {depth} of {len(states) - 1}"
                module = first_not_finite(self.model, text_BL)
                return f"first in what {place} gives, at position {int(broken[0])}{f' ({module})' if module else ''}"
        return "in the logits alone"

    @torch.inference_mode()
    def _lean_equals_stock(self, lean: LeanForward) -> bool:
        """By the norm of the difference: with 16 bits, single logits differ by a step of their own size."""
        assert self.parts.head is not None
        head = self.parts.head
        tokens_BL = torch.arange(2 * PROBE, device=self.device).view(2, PROBE) * 7 % head.weight.shape[0]
        tokens_BL[1, : PROBE // 2] = tokens_BL[0, : PROBE // 2]
        wanted = [range(1, 3), range(7, PROBE // 2)]
        try:
            held = lean.buffer(PROBE)
            lean.rows(tokens_BL[:1, : PROBE // 2], [], held, keep=True)
            ours = head(lean.rows(tokens_BL[:, PROBE // 2 :], wanted, held)).float()
        except (RuntimeError, AttributeError):  # layers that are not what the family's name promises: packed, wrapped
            return False
        rows = [PROBE // 2 + row for r in wanted for row in r]
        theirs = self.model(tokens_BL, use_cache=False).logits[:, rows].float()
        exact = head.weight.dtype in (torch.float32, torch.float64)
        return bool((ours - theirs).norm() <= (1e-4 if exact else 3e-2) * theirs.norm())


def has_static_rotation(model: PreTrainedModel) -> bool:
    """Whether positions turn alike at every length; dynamic NTK and LongRoPE switch with the length of the input."""
    block = getattr(model.config.get_text_config(), "rope_parameters", None) or {}
    blocks = [value for value in block.values() if isinstance(value, dict)] or [block]
    return not any(b.get("rope_type") in ("dynamic", "longrope") for b in blocks)


def losses_of(logits_BRV: Tensor, targets_BR: Tensor) -> Tensor:
    logits_BRV = logits_BRV.float()
    return logits_BRV.logsumexp(-1) - logits_BRV.gather(-1, targets_BR[..., None])[..., 0]
