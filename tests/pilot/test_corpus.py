"""The pilot's texts: what is held out is never trained on."""

import random
from pathlib import Path

import pytest

from ropewalk.checkpoint.folder import open_checkpoint
from ropewalk.model.load import TextCodec, load_codec
from ropewalk.pilot import corpus
from ropewalk.pilot.corpus import copying_row, heldout_modules, retrieval_row, training_files, training_texts
from ropewalk.text.retrieval import PAPER_FILLER, PasskeyWriter


@pytest.fixture(scope="module")
def codec() -> TextCodec:
    return load_codec(open_checkpoint("pilot"))


def test_held_out_modules_are_there_and_long_enough() -> None:
    modules = heldout_modules()
    assert len(modules) >= 11 and all(len(module.text) > 20_000 for module in modules)


def test_no_training_file_is_a_held_out_module_or_a_copy_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heldout = {corpus.standard_library() / module.name for module in heldout_modules()}
    assert not heldout & set(training_files(()))
    copy = tmp_path / "copied_difflib.py"
    copy.write_text("# vendored\n" + heldout_modules()[0].text)
    other = tmp_path / "other.py"
    other.write_text("value = 1  # a line that is long enough to count as one\n" * 3)
    monkeypatch.setattr(corpus, "training_files", lambda packages: [copy, other])
    assert list(training_texts(0)) == [other.read_text()]


def test_the_order_of_training_texts_is_the_seeds() -> None:
    def first(seed: int) -> list[str]:
        return [text for _, text in zip(range(5), training_texts(seed, ()), strict=False)]

    assert first(0) == first(0) != first(1)


@pytest.mark.parametrize("length", [256, 700, 2048])
def test_retrieval_rows_are_exact_and_mark_their_answers(codec: TextCodec, length: int) -> None:
    rng = random.Random(0)
    for _ in range(20):
        row, answers = retrieval_row(codec, codec.bos, length, rng)
        assert len(row) == len(answers) == length
        text = codec.decode([token for token, marked in zip(row, answers, strict=True) if marked])
        assert text.replace(" ", "").isdigit() and len(text.replace(" ", "")) % 5 == 0
        assert not any(sentence in codec.decode(row) for sentence in PAPER_FILLER.split(". "))


def test_keys_lie_anywhere_between_the_ends(codec: TextCodec) -> None:
    writer = PasskeyWriter(codec, bos=codec.bos)
    assert writer.document("12345", 256, 0).distance == writer.distances("12345", 256)[0]
    assert writer.document("12345", 256, 999).distance == writer.distances("12345", 256)[1]


def test_copying_rows_mark_only_what_can_be_known() -> None:
    rng = random.Random(0)
    for _ in range(200):
        row, known = copying_row(range(2, 1000), list(range(10)), 256, rng)
        assert len(row) == len(known) == 256
        for place in (i for i, marked in enumerate(known) if marked):
            seen = [row[i : i + 2] for i in range(place - 2)]
            assert row[place - 2 : place] in seen  # the two tokens before stood together earlier


def far_recurrence(tokens: list[int], run: int = 6, near: int = 256, far: int = 1024) -> float:
    """Share of tokens that end a run of tokens last seen more than `near` and at most `far` before."""
    last: dict[tuple[int, ...], int] = {}
    found = 0
    for place in range(run, len(tokens)):
        ending = tuple(tokens[place - run + 1 : place + 1])
        found += near < place - last.get(ending, place) <= far
        last[ending] = place
    return found / (len(tokens) - run)


def test_heldout_modules_stand_in_the_order_of_what_recurs_from_beyond_the_window(codec: TextCodec) -> None:
    """What few documents are scored is decided by what they are, before any model has seen them."""
    modules = heldout_modules()
    if not all(module.unchanged for module in modules):
        pytest.skip("another Python's standard library: the order is that of CPython 3.11.7")
    shares = [far_recurrence(codec.document(module.text)[1:4097]) for module in modules]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] > 10 * shares[-1]
