"""Rows become batches: each target once, with its share of the whole, whatever the rows' shapes."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ropewalk.model.lean import ATTENTION, EVERYTHING, HOST, INPUT
from ropewalk.model.ranks import Layout
from ropewalk.planning.memory import Load, memory_of
from ropewalk.planning.shapes import paper_config, shape_of
from ropewalk.rope.spec import Window
from ropewalk.train.batches import batches, counted
from ropewalk.train.recipe import Recipe
from ropewalk.train.recompute import chosen_keeps, load_of
from ropewalk.train.rows import Row

CPU = torch.device("cpu")


def row(seed: int, length: int = 12, **more) -> Row:
    rng = np.random.default_rng(seed)
    weights = rng.choice([0.0, 1.0, 10.0], length).astype(np.float32)
    return Row(rng.integers(0, 1000, length), weights, **more)


@given(st.lists(st.sampled_from([None, 3, 4, 6]), min_size=1, max_size=6), st.integers(1, 60))
def test_every_target_has_its_share_once(pieces: list[int | None], at_once: int) -> None:
    rows = [row(seed, piece=piece) for seed, piece in enumerate(pieces)]
    total, targets = counted(rows)
    seen = []
    for batch in batches(rows, at_once, CPU):
        assert batch.inputs.shape == batch.targets.shape == batch.shares.shape
        assert len(batch.inputs) == 1 or batch.inputs.shape[0] * (batch.inputs.shape[1] + 1) <= at_once
        seen += [
            (a, b, s)
            for a, b, s in zip(
                batch.inputs.flatten().tolist(), batch.targets.flatten().tolist(), batch.shares.flatten().tolist(),
                strict=True,
            )
            if s
        ]  # fmt: skip
    expected = []
    for one in rows:
        width = one.piece or 12
        for place in range(12):
            if place % width and one.weights[place]:
                expected.append((one.tokens[place - 1], one.tokens[place], one.weights[place] / total))
    assert len(seen) == targets == len(expected)
    assert sorted(pair[:2] for pair in seen) == sorted(pair[:2] for pair in expected)
    assert sum(s for _, _, s in seen) == pytest.approx(1.0 if targets else 0.0, abs=1e-5)


def test_positions_and_documents_stay_with_their_tokens() -> None:
    skipping = row(0, positions=np.arange(12) + 100 * (np.arange(12) > 4))
    packed = row(1, documents=np.array([0] * 5 + [3] * 6 + [4], dtype=np.int32))
    (batch,) = batches([skipping, packed, row(2)], 1000, CPU)
    assert batch.positions is not None and batch.starts is not None
    assert batch.positions[0].tolist() == [0, 1, 2, 3, 4, *range(105, 111)]
    assert batch.positions[1].tolist() == batch.positions[2].tolist() == list(range(11))
    assert batch.starts == [[0], [0, 5], [0]]  # the last document is only a target, of which nothing is an input


def test_pieces_begin_at_position_zero_and_keep_their_documents() -> None:
    mixed = row(0, piece=6, documents=np.array([0] * 4 + [1] * 8, dtype=np.int32))
    (batch,) = batches([mixed], 1000, CPU)
    assert batch.positions is None and batch.starts == [[0, 4], [0]]
    assert batch.explicit_positions().tolist() == [list(range(5))] * 2


def test_layers_keep_what_memory_bears() -> None:
    """From plenty to nothing for LLaMA 7B at 32k on a GPU: everything, some of it, the least, and the host."""
    shape = shape_of(paper_config("llama-7b"))
    gib = 2**30

    def keeps(room: int, *, on_gpu: bool = True) -> tuple[list[str], bool]:
        return chosen_keeps(shape, Load(tokens=32768, on_gpu=on_gpu), room * gib, "bfloat16")

    assert keeps(4000) == ([EVERYTHING] * 32, True)
    some, fits = keeps(100)
    assert fits and set(some) == {ATTENTION, EVERYTHING} and some == sorted(some)  # the last layers keep everything
    assert keeps(100)[0].count(EVERYTHING) < keeps(150)[0].count(EVERYTHING)
    least, fits = keeps(20)
    assert fits and set(least) <= {HOST, ATTENTION} and least[0] == HOST
    assert keeps(1) == ([HOST] * 32, False)
    assert set(keeps(25, on_gpu=False)[0]) <= {INPUT, ATTENTION}


@pytest.mark.parametrize("adapter", ["full", "lora+"])
@pytest.mark.parametrize(("gpus", "sequence"), [(1, 1), (8, 1), (8, 4)])
def test_copies_and_gathered_weights_are_in_the_room_too(gpus: int, sequence: int, adapter: str) -> None:
    """To the byte, between layers that keep the least without the host and layers that all keep everything."""
    shape, load = shape_of(paper_config("llama-7b")), Load(tokens=8192, gpus=gpus, sequence=sequence)
    thin, full = (memory_of(shape, load, policy, "bfloat16", adapter) for policy in ("lean", "none"))
    assert thin.copies and full.copies > 2 * shape.body
    least = max(thin.working, full.working, thin.loss) + thin.kept + thin.copies
    most = least + full.kept + full.copies - thin.kept - thin.copies

    def whole(room: int) -> list[str]:
        return chosen_keeps(shape, load, room, "bfloat16", adapter)[0]

    assert whole(least) == [ATTENTION] * 32 and HOST in whole(least - 1)
    assert whole(most) == [EVERYTHING] * 32 and whole(most - 1) == [ATTENTION] + [EVERYTHING] * 31


@pytest.mark.parametrize(
    ("sequences", "data", "sequence", "tokens"),
    [(64, 1, 1, 2 * 3000), (64, 8, 4, 2 * 750), (8, 8, 1, 3000), (9, 8, 7, 2 * 429)],
)
def test_a_rank_is_given_its_rows_and_its_part_of_each(sequences: int, data: int, sequence: int, tokens: int) -> None:
    """Two rows of 3,000 tokens at once, if it has two; seven ranks share a row as 429 tokens each, zeros at the end."""
    recipe = Recipe(
        name="paper", steps=1, length=3000, batch_tokens=sequences * 3000, learning_rate=1e-4, window=Window(64, 64)
    )
    load = load_of(recipe, Layout(data, sequence), 8192, on_gpu=True)
    assert load == Load(tokens=tokens, gpus=data * sequence, sequence=sequence, on_gpu=True)
