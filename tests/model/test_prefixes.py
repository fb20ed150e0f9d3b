"""The walk over what prompts share: every prompt once, nothing shared that may not be, and no token twice without need."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ropewalk.model import prefixes
from ropewalk.model.prefixes import Keep, Score, deepest, shared_length, walk, widest

PROMPTS = st.lists(st.lists(st.integers(0, 2), min_size=2, max_size=60), min_size=1, max_size=30)


def followed(prompts: list[list[int]], steps: list[Keep | Score]) -> dict[int, list[int]]:
    """What the buffer holds when each prompt is scored, by doing what the steps say."""
    held: list[list[int]] = [[]]
    at: dict[int, list[int]] = {}
    for step in steps:
        assert len(held[0]) >= step.start
        held = [lane[: step.start] for lane in held]
        if isinstance(step, Keep):
            held = [list(lane) for lane in (held if len(held) == len(step.prompts) else held[:1] * len(step.prompts))]
            for lane, index in zip(held, step.prompts, strict=True):
                lane += prompts[index][step.start : step.end]
        else:
            for lane, indices in zip(held, step.lanes, strict=False):
                for index in indices:
                    assert index not in at
                    at[index] = list(lane)
    return at


@given(PROMPTS, st.integers(1, 200), st.integers(1, 20), st.integers(1, 5), st.data())
def test_each_prompt_is_scored_once_after_its_own_beginning(
    prompts: list[list[int]], worth: int, shortest: int, lanes: int, data
) -> None:
    shareable = [data.draw(st.integers(0, len(prompt) - 2)) for prompt in prompts]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prefixes, "SHORTEST", shortest)
        steps = list(walk(prompts, shareable, worth=worth, lanes=lanes))
    assert widest(steps) <= lanes
    at = followed(prompts, steps)
    assert set(at) == set(range(len(prompts)))
    for index, held in at.items():
        assert prompts[index][: len(held)] == held
        assert len(held) <= shareable[index]
    assert deepest(steps) == max(map(len, at.values()), default=0)


def test_a_chain_of_growing_prompts_reads_its_trunk_once() -> None:
    """The passkey's shape: one filler, cut off at ever later places, each time with another end."""
    prompts = [[99] * (200 * n) + [n, 1, 2, 3] for n in range(1, 11)]
    steps = list(walk(prompts, [len(p) - 2 for p in prompts]))
    kept = sum(step.end - step.start for step in steps if isinstance(step, Keep))
    assert kept == 1800 and all(len(step.lanes[0]) in (1, 2) for step in steps if isinstance(step, Score))


def test_chains_of_one_shape_are_walked_side_by_side() -> None:
    """Keys near the start: ten chains that grow alike, behind one task line."""
    prompts = [[7] * 40 + [key] * 20 + [99] * (64 * n) + [1, 2, 3] for key in range(10, 20) for n in range(1, 9)]
    steps = list(walk(prompts, [len(p) - 2 for p in prompts], lanes=10))
    passes = [step for step in steps if isinstance(step, Score)]
    assert [len(step.lanes) for step in passes] == [10] * len(passes) and len(passes) <= 8
    halves = list(walk(prompts, [len(p) - 2 for p in prompts], lanes=7))
    assert {len(step.lanes) for step in halves if isinstance(step, Score)} == {5}  # as evenly as can be


def test_chains_that_differ_in_shape_are_walked_apart() -> None:
    one = [[10] * 200 + [99] * (64 * n) + [1, 2, 3] for n in range(1, 5)]
    other = [[11] * 200 + [99] * (65 * n) + [1, 2, 3] for n in range(1, 5)]
    steps = list(walk([*one, *other], [len(p) - 2 for p in [*one, *other]], lanes=10))
    assert widest(steps) == 1


def test_choices_after_one_context_stand_together() -> None:
    prompts = [[5] * 200 + [7] * 40 + [choice, 1, 2] for choice in range(4)]
    other = [[6] * 30 + [choice] * 3 for choice in range(2)]
    steps = list(walk([*prompts, *other], [240] * 4 + [30] * 2))
    assert steps == [Score(((4, 5),), 0), Keep((0,), 0, 240), Score(((0, 1, 2, 3),), 240)]  # 30 is not worth a pass
    assert Keep((4,), 0, 30) in list(walk([*prompts, *other], [240] * 4 + [30] * 2, worth=30))


def test_a_short_beginning_of_all_does_not_hide_a_long_one_of_some() -> None:
    prompts = [[1, 2, 3] + [n] * 300 + [last] * 4 for n in range(4, 7) for last in (7, 8)]
    steps = list(walk(prompts, [303] * 6))
    assert [step for step in steps if isinstance(step, Keep)] == [
        Keep((0,), 0, 303),
        Keep((2,), 0, 303),
        Keep((4,), 0, 303),
    ]


@given(st.lists(st.integers(0, 1), max_size=300), st.lists(st.integers(0, 1), max_size=300), st.integers(0, 300))
def test_shared_length(one: list[int], other: list[int], same: int) -> None:
    one, other = [0] * same + one, [0] * same + other
    length = shared_length(one, other)
    assert one[:length] == other[:length]
    assert length in (len(one), len(other)) or one[length] != other[length]
