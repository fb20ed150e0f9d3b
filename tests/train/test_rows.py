"""Rows: what stands in them, where it stands, and that a number always has the same one."""

import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ropewalk.text.summaries import HEAD, TAIL, Room, SummaryDocument, summary_prompt
from ropewalk.train.rows import Row, SummaryRows, TokenRows, joined_rows, joined_tokens, skipped_positions

SIZES = [5, 30, 1, 1, 40, 23, 60]  # documents of these lengths, each of one token over and over: its number
TOKENS = joined_tokens(([number] * size for number, size in enumerate(SIZES)), 160, 16, "here")
STARTS = np.cumsum([0, *SIZES[:-1]])


def token_rows(**options: Any) -> TokenRows:
    return TokenRows(**({"tokens": TOKENS, "length": 16, "seed": 3} | options))


def passkeys(size: int, rng: random.Random) -> Row:
    """Two documents of random tokens above any of the texts'."""
    tokens = np.array([rng.randrange(100, 200) for _ in range(size)], dtype=np.int64)
    half = Row(tokens[: size // 2], np.ones(size // 2, dtype=np.float32))
    return joined_rows([half, Row(tokens[size // 2 :], np.full(size - size // 2, 10.0, dtype=np.float32))])


def assert_same(a: Row, b: Row) -> None:
    assert a.piece == b.piece
    for name in ("tokens", "weights", "positions", "documents"):
        ours, theirs = getattr(a, name), getattr(b, name)
        assert (ours is None) == (theirs is None) and (ours is None or np.array_equal(ours, theirs)), name


EVERY = [
    {},
    {"starts": STARTS},
    {"chunks": 2, "reach": 64},
    {"chunks": 3, "reach": 64, "starts": STARTS, "retrieval": passkeys, "retrieval_share": 0.5},
    {"mixed": 0.5, "piece": 4, "retrieval": passkeys, "retrieval_share": 0.5},
    {"mixed": 0.5, "piece": 4, "starts": STARTS, "retrieval": passkeys, "retrieval_share": 0.5},
]


@pytest.mark.parametrize("options", EVERY)
def test_a_number_has_one_row_whatever_was_asked_before(options: dict) -> None:
    first, again = token_rows(**options), token_rows(**options)
    numbers = list(range(40))
    random.Random(0).shuffle(numbers)
    kept = {number: again.row(number) for number in numbers}
    for number in range(40):
        assert_same(first.row(number), kept[number])


@pytest.mark.parametrize("options", EVERY)
def test_rows_are_of_the_kind_that_the_loop_takes(options: dict) -> None:
    rows = token_rows(**options)
    for row in map(rows.row, range(40)):
        assert (row.tokens.dtype, row.weights.dtype) == (np.int64, np.float32)
        assert all(len(array) == 16 for array in (row.tokens, row.weights))
        if row.positions is not None:
            assert row.positions.dtype == np.int64 and len(row.positions) == 16
        assert (row.documents is not None) == ("starts" in options)
        if row.documents is not None:
            assert row.documents.dtype == np.int32 and row.documents[0] == 0
            assert set(np.diff(row.documents).tolist()) <= {0, 1}


def test_the_text_of_a_number_is_the_same_under_every_recipe() -> None:
    """Arms of a comparison differ in where tokens stand, not in which they are."""
    for options in ({"chunks": 2, "reach": 64}, {"mixed": 0.5, "piece": 4}, {"starts": STARTS}):
        ours, theirs = token_rows(**options), token_rows()
        assert all(np.array_equal(ours.row(n).tokens, theirs.row(n).tokens) for n in range(30))


def test_each_token_knows_its_document_and_the_first_of_one_is_no_target() -> None:
    """Each document is one token repeated, so its number can be told from the token itself."""
    rows = token_rows(starts=STARTS)
    for row in map(rows.row, range(rows.count)):
        assert row.documents is not None and row.positions is None
        assert np.array_equal(row.documents, np.unique(row.tokens, return_inverse=True)[1])
        begins = np.flatnonzero(np.diff(row.tokens)) + 1
        assert np.array_equal(np.flatnonzero(row.weights == 0), begins)


@given(
    length=st.integers(4, 60), more=st.integers(1, 500), chunks=st.integers(2, 4), seed=st.integers(0, 10**6)
)  # fmt: skip
def test_skipped_positions_grow_from_0_and_stay_in_the_window(length: int, more: int, chunks: int, seed: int) -> None:
    positions = skipped_positions(length, length + more, chunks, random.Random(seed))
    steps = np.diff(positions)
    assert positions[0] == 0 and steps.min() >= 1 and positions[-1] < length + more
    assert (steps > 1).sum() <= chunks - 1  # within a chunk positions run on


def test_every_distance_of_the_window_occurs_and_far_ones_are_not_rare() -> None:
    """With u even over 0 .. 48, a row of 16 reaches beyond 32 when u > 16: in about two rows of three."""
    rows = token_rows(chunks=2, reach=64)
    seen: set[int] = set()
    far = 0
    for row in map(rows.row, range(4000)):
        assert row.positions is not None
        seen.update(np.unique(row.positions[:, None] - row.positions[None, :]).tolist())
        far += row.positions[-1] >= 32
    assert set(range(64)) <= seen and max(seen) == 63
    assert 0.60 < far / 4000 < 0.72  # 32 of 49 is 0.653; four standard errors are 0.03


def test_positions_differ_from_row_to_row_and_with_the_seed() -> None:
    rows, others = token_rows(chunks=2, reach=64), token_rows(chunks=2, reach=64, seed=4)
    drawn = [tuple(rows.row(n).positions.tolist()) for n in range(50)]  # type: ignore[union-attr]
    assert len(set(drawn)) > 40
    assert drawn != [tuple(others.row(n).positions.tolist()) for n in range(50)]  # type: ignore[union-attr]


def test_passkeys_get_skipped_positions_too() -> None:
    rows = token_rows(chunks=2, reach=64, retrieval=passkeys, retrieval_share=1.0)
    assert all(row.tokens.min() >= 100 and row.positions is not None for row in map(rows.row, range(10)))


@given(share=st.sampled_from([0.25, 0.5, 0.75, 0.3]), batch=st.integers(1, 40))
@settings(max_examples=30)
def test_the_share_of_rows_in_pieces_is_exact_in_any_run_of_rows(share: float, batch: int) -> None:
    rows = token_rows(mixed=share, piece=4)
    for first in range(0, 3 * batch, batch):
        pieces = sum(rows.row(number).piece == 4 for number in range(first, first + batch))
        assert abs(pieces - share * batch) <= 1


def test_the_first_token_of_a_piece_is_no_target() -> None:
    rows = token_rows(mixed=0.5, piece=4)
    for number, row in enumerate(map(rows.row, range(8))):
        expected = np.tile([0, 1, 1, 1], 4) if number % 2 else np.ones(16)
        assert row.piece == (4 if number % 2 else None) and np.array_equal(row.weights, expected)


def test_passkeys_in_a_row_of_pieces_are_whole_in_their_piece() -> None:
    asked: list[int] = []

    def noted(size: int, rng: random.Random) -> Row:
        asked.append(size)
        return passkeys(size, rng)

    rows = token_rows(mixed=1.0, piece=8, retrieval=noted, retrieval_share=1.0, starts=STARTS)
    row = rows.row(0)
    assert asked == [8, 8] and row.documents is not None
    assert row.documents.tolist() == [0] * 4 + [1] * 4 + [2] * 4 + [3] * 4
    assert row.weights.tolist() == [0, 1, 1, 1, 0, 10, 10, 10] * 2


def test_the_fingerprint_tells_all_that_decides_rows() -> None:
    changed = [
        {}, {"tokens": TOKENS + 1}, {"length": 8}, {"seed": 4}, {"starts": STARTS}, {"starts": STARTS + 1},
        {"chunks": 2, "reach": 64}, {"chunks": 3, "reach": 64}, {"chunks": 2, "reach": 65}, {"mixed": 0.5, "piece": 4},
        {"mixed": 0.25, "piece": 4}, {"mixed": 0.5, "piece": 8}, {"retrieval": passkeys, "retrieval_share": 0.5},
    ]  # fmt: skip
    digests = [token_rows(**options).digest() for options in changed]
    assert len(set(digests)) == len(changed)
    assert digests == [token_rows(**options).digest() for options in changed]


# Summaries


class Bytes:
    """One token a byte and a BOS, so that rows can be read."""

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def document(self, text: str) -> list[int]:
        return [256, *self.encode(text)]


END = [257]
PAIRS = [SummaryDocument("a:1", "Report. " * 50, "Sum."), SummaryDocument("a:2", "Short.", " Long summary " * 9)]
ROOM = Room(window=200, report=40, summary=60)


def summary_rows(**options: Any) -> SummaryRows:
    given = {"codec": Bytes(), "documents": PAIRS, "room": ROOM, "end": END, "seed": 0}
    return SummaryRows(**(given | options))


def by_name(rows: SummaryRows) -> dict[str, Row]:
    found = {}
    for row in map(rows.row, range(2)):
        found["a:2" if b"Short." in bytes(t for t in row.tokens.tolist() if t < 256) else "a:1"] = row
    return found


def test_the_prompt_is_that_of_evaluation_and_no_target() -> None:
    row = by_name(summary_rows())["a:1"]
    prompt, cut_by = summary_prompt(Bytes(), PAIRS[0].report, ROOM)
    answer = [*b" Sum.", *END]
    assert cut_by != "nothing" and row.tokens[: len(prompt)].tolist() == prompt
    whole = len(prompt) + len(answer)
    assert row.tokens[len(prompt) : whole].tolist() == answer
    assert row.weights.tolist() == [0.0] * len(prompt) + [1.0] * len(answer) + [0.0] * (200 - whole)
    text = bytes(prompt[1:]).decode()
    assert text.startswith(HEAD + "Report. ") and text.endswith(TAIL)


def test_a_summary_that_is_cut_has_no_end() -> None:
    row = by_name(summary_rows())["a:2"]
    targets = row.tokens[row.weights > 0].tolist()
    assert bytes(targets).decode() == (" " + PAIRS[1].summary.strip())[:60] and 257 not in targets


def test_each_epoch_reads_each_report_once() -> None:
    many = [SummaryDocument(f"a:{i}", f"{i:03}", "S") for i in range(20)]
    rows = summary_rows(documents=many)
    epochs = [[bytes(rows.row(20 * e + n).tokens[51:54].tolist()) for n in range(20)] for e in range(2)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == [f"{i:03}".encode() for i in range(20)]
    assert epochs[0] != epochs[1]


def test_the_fingerprint_of_summaries_tells_texts_seed_and_room() -> None:
    swapped = [PAIRS[0], replace_summary(PAIRS[1])]
    changed = [{}, {"documents": swapped}, {"seed": 1}, {"room": ROOM._replace(report=39)}, {"end": [1]}]
    assert len({summary_rows(**options).digest() for options in changed}) == len(changed)


def replace_summary(pair: SummaryDocument) -> SummaryDocument:
    return pair._replace(summary="Another.")


def test_joined_rows_number_their_documents_on() -> None:
    one = Row(np.arange(2), np.ones(2, dtype=np.float32))
    two = joined_rows([one, one])
    assert joined_rows([one]) is one and two.documents is not None and two.documents.tolist() == [0, 0, 1, 1]
    assert joined_rows([two, replace(one, tokens=np.arange(2))]).documents.tolist() == [0, 0, 1, 1, 2, 2]  # type: ignore[union-attr]
