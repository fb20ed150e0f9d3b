"""Whether the ranks of a run have the same before them: each reads the texts and looks for saves by itself."""

from pathlib import Path

from ropewalk.errors import RankError
from ropewalk.model.ranks import Ranks

DIGITS = 13  # of a digest in hexadecimal: 52 bits, which a float64 holds exactly


def require_agreement(ranks: Ranks, folder: Path, newest: int, rows_sha256: str) -> None:
    """Raises RankError, on all ranks alike, where they cut other rows or found another newest save in the run's `folder`.

    `newest` is the step of this rank's, -1 where it found none; `rows_sha256` the digest of its rows. Every rank must
    call this.
    """
    require_same_texts(ranks, rows_sha256)
    oldest, latest = int(ranks.least(newest)), int(ranks.most(newest))
    if oldest != latest:
        raise RankError(
            f"the ranks of this run do not find the same saves in {folder}: one finds {_in_words(oldest)}, another "
            f"{_in_words(latest)}.\n"
            "  All go on from the same save, in a folder on a disk that all machines share.\n"
            "  Give such an --out, then go on with --resume."
        )


def require_same_texts(ranks: Ranks, sha256: str) -> None:
    """Raises RankError, on all ranks alike, where their texts have other digests. Every rank must call this."""
    texts = int(sha256[:DIGITS], 16)
    if ranks.least(texts) != ranks.most(texts):
        raise RankError(
            "the ranks of this run have not read the same texts.\n"
            "  Each takes its share of the work from the same texts in the same order.\n"
            "  Give texts that are alike on all machines."
        )


def _in_words(step: int) -> str:
    return "none" if step < 0 else f"step {step}"
