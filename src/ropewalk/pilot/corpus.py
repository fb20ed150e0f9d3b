"""The pilot's text: the Python sources that every machine with this package has, and passkey documents.

Sources are the standard library and a few packages that Ropewalk depends on. The modules named in `heldout.txt` are
for evaluation only; a source that shares many of its lines with one of them is left out of training too.
"""

import hashlib
import importlib.util
import random
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from ropewalk.errors import DataError
from ropewalk.text.retrieval import PasskeyDocument, PasskeyWriter, Tokenizer, random_key, training_filler

PILOT = "pilot"  # the name of the built-in texts, wherever texts are asked for
PACKAGES = ("torch", "transformers", "numpy", "sympy", "networkx", "matplotlib", "huggingface_hub", "rich", "pygments")
SMALLEST, LARGEST = 2_000, 400_000  # bytes; smaller files are mostly re-exports, larger ones mostly tables
SKIPPED_FOLDERS = frozenset({"site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3", "__pycache__"})
SHARED_LINES = 0.2  # a source with more of its long lines in a held-out module is a copy of it

HELDOUT_LIST = Path(__file__).with_name("heldout.txt")


@dataclass(frozen=True)
class HeldoutModule:
    """One evaluation document: its text here, and whether it is the text the pilot was made beside."""

    name: str
    text: str
    unchanged: bool


def standard_library() -> Path:
    return Path(sysconfig.get_paths()["stdlib"])


@lru_cache(maxsize=1)
def heldout_modules() -> tuple[HeldoutModule, ...]:
    """The held-out modules that this Python has, in the order of `heldout.txt`.

    Raises DataError when fewer than half are there: some distributions ship the library in parts.
    """
    listed = [
        line.split() for line in HELDOUT_LIST.read_text(encoding="utf-8").splitlines() if line[:1] not in ("", "#")
    ]
    modules = []
    for digest, name in listed:
        path = standard_library() / name
        if path.is_file():
            content = path.read_bytes()
            unchanged = hashlib.sha256(content).hexdigest() == digest
            modules.append(HeldoutModule(name, content.decode("utf-8", "replace"), unchanged))
    if len(modules) < len(listed) / 2:
        raise DataError(
            f"{len(listed) - len(modules)} of the {len(listed)} held-out modules are not in this Python's standard library "
            f"({standard_library()}).\n"
            "  They come with Python 3.11 to 3.13; some distributions ship the library in parts.\n"
            "  Install the full standard library, or give texts of your own with --data."
        )
    return tuple(modules)


def heldout_note() -> str | None:
    """What is not as it was when the pilot was made; None if nothing is."""
    modules = heldout_modules()
    changed = [module.name for module in modules if not module.unchanged]
    if not changed:
        return None
    return (
        f"{len(changed)} of {len(modules)} held-out modules differ from those of CPython 3.11.7, where the pilot was made "
        f"({', '.join(changed[:4])}{', ...' if len(changed) > 4 else ''}): perplexities may differ a little."
    )


def _long_lines(text: str) -> set[str]:
    return {line.strip() for line in text.splitlines() if len(line.strip()) >= 30}


@lru_cache(maxsize=1)
def _heldout_lines() -> frozenset[str]:
    return frozenset().union(*(_long_lines(module.text) for module in heldout_modules()))


def _roots(packages: tuple[str, ...]) -> list[Path]:
    roots = [standard_library()]
    for package in packages:
        spec = importlib.util.find_spec(package)
        if spec is not None and spec.submodule_search_locations:
            roots.append(Path(next(iter(spec.submodule_search_locations))))
    return roots


def training_files(packages: tuple[str, ...] = PACKAGES) -> list[Path]:
    """Every source used for training, sorted by its path below its root; held-out modules are not among them."""
    heldout = {(standard_library() / module.name).resolve() for module in heldout_modules()}
    named: list[tuple[str, Path]] = []
    for root in _roots(packages):
        for path in root.rglob("*.py"):
            below = path.relative_to(root)
            if SKIPPED_FOLDERS.isdisjoint(below.parts) and SMALLEST < path.stat().st_size < LARGEST:
                named.append((f"{root.name}/{below}", path))
    return [path for _, path in sorted(named) if path.resolve() not in heldout]


def training_texts(seed: int, packages: tuple[str, ...] = PACKAGES) -> Iterator[str]:
    """The sources, shuffled; one that copies a held-out module, or is not UTF-8, is passed over."""
    files = training_files(packages)
    random.Random(seed).shuffle(files)
    heldout = _heldout_lines()
    for path in files:
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        lines = _long_lines(text)
        if lines and len(lines & heldout) / len(lines) <= SHARED_LINES:
            yield text


def retrieval_documents(
    tokenizer: Tokenizer, bos: list[int], length: int, rng: random.Random, *, at_ends: bool = False
) -> list[PasskeyDocument]:
    """Passkey documents that are exactly `length` tokens together.

    Lengths are at random; keys and fillers are from the training side of their splits. The key line lies anywhere;
    `at_ends` draws its distance from the whole document and clips it, so that the two ends are frequent.
    """
    shortest = PasskeyWriter(tokenizer, bos=bos).shortest() + 4  # some keys take a token or two more
    found: list[PasskeyDocument] = []
    room = length
    while room > 0:
        size = room if room < 2 * shortest else rng.choice((room, rng.randint(shortest, room - shortest)))
        writer = PasskeyWriter(tokenizer, bos=bos, filler=training_filler(rng))
        key = random_key(rng, evaluation=False)
        nearest, furthest = (0, size) if at_ends else writer.distances(key, size)
        found.append(writer.document(key, size, distance=rng.randint(nearest, furthest)))
        room -= size
    return found


def retrieval_row(
    tokenizer: Tokenizer, bos: list[int], length: int, rng: random.Random, *, at_ends: bool = False
) -> tuple[list[int], list[bool]]:
    """Those documents one after the other, exactly `length` tokens, and which of them are answers."""
    row: list[int] = []
    answers: list[bool] = []
    for document in retrieval_documents(tokenizer, bos, length, rng, at_ends=at_ends):
        row += document.tokens
        answers += [False] * len(document.prompt) + [True] * len(document.answer)
    return row, answers


def copying_row(
    vocabulary: Sequence[int], digits: Sequence[int], length: int, rng: random.Random
) -> tuple[list[int], list[bool]]:
    """Exactly `length` random tokens that repeat (a span, a gap, the span again, ...), and which of them can be known.

    Nothing but looking back predicts the second copy, so these rows teach a small model to look back soon; spans of
    digits alone teach it to keep its place among tokens that recur, which is what a key asks for. What cannot be known,
    the first copy, the gap and where the second copy begins, is no target.
    """
    row: list[int] = []
    known: list[bool] = []
    while len(row) < length:
        span = rng.choices(digits if rng.random() < 0.5 else vocabulary, k=rng.randint(5, length // 3))
        gap = rng.choices(vocabulary, k=rng.randint(0, length // 3))
        row += [*span, *gap, *span]
        known += [False] * (len(span) + len(gap) + 2) + [True] * (len(span) - 2)
    return row[:length], known[:length]
