"""Each guard of docs/reliability.md taken away, and the test that notices: `python -m tests.faults.mutations`.

Works on a copy of the sources; prints the table of that page, and exits with 1 if a guard can go unnoticed.
"""

import sys

from tests.rope.mutations import caught_by

HOSTILE, GUARDS, NUMBERS, FUZZ = (f"tests/faults/test_{name}.py" for name in ("hostile", "guards", "numbers", "fuzz"))

ALL = ("-m", "faults or not faults", "--fuzz", "5000")

# file, what stands there, what is put in its place, the tests to run, what the guard is
REMOVED = [
    ("checkpoint/headers.py", "if tensor.start != end:", "if False:", HOSTILE, "tensors neither overlap nor leave gaps"),
    ("checkpoint/headers.py", "if 8 * (stop - start) != BITS[dtype] * math.prod(shape):", "if False:", HOSTILE, "a tensor has the bytes of its shape"),
    ("checkpoint/files.py", "if not is_plain_name(name) or not name.endswith", "if not name.endswith", HOSTILE, "an index names files in its folder"),
    ("checkpoint/files.py", "        if held.get(name) != file:", "        if False:", HOSTILE, "an index says where its tensors are"),
    ("checkpoint/files.py", "if name is not None and not is_plain_name(name):", "if False:", HOSTILE, "a tokenizer is read from its folder"),
    ("checkpoint/files.py", "if named not in (None, WEIGHTS, INDEX):", "if False:", HOSTILE, "no other file of weights is loaded"),
    ("checkpoint/inside.py", "if not path.is_symlink():", "if True:", HOSTILE, "links stay in the folder"),
    ("checkpoint/folder.py", "if (now := destination.stat().st_size) != size:", "if (now := size) != size:", GUARDS, "a source that changed is noticed"),
    ("reading.py", '> MAX_VALUES:', "> 10**12:", GUARDS, "JSON is read in bounds"),
    ("reading.py", "if len(content) != len(pairs):", "if False:", GUARDS, "a name said twice is refused"),
    ("names.py", 'return _STEERING.sub(lambda found: f"\\\\u{ord(found[0]):04x}", text)', "return text", GUARDS, "answers do not steer the terminal"),
    ("atomic.py", "        if not locked(handle):\n            raise", "        if False:\n            raise", GUARDS, "an output has one writer"),
    ("atomic.py", "            if not locked(handle):\n                return", "            if False:\n                return", GUARDS, "a living process's work is not cleared away"),
    ("atomic.py", "(_put_new if new else os.replace)", "os.replace", GUARDS, "a page is not written over another"),
    ("record.py", "self._require_unchanged(folder)", "pass", GUARDS, "work is not done over another's"),
    ("evals/pieces.py", "os.ftruncate(handle, before)", "pass", GUARDS, "no half line stays in the pieces"),
    ("reports/sources.py", "folder.resolve() not in path.resolve().parents", "False", HOSTILE, "parts of a record lie in its folder"),
    ("rope/spec.py", "if not self._turns():", "if False:", FUZZ, "a rotation can be computed"),
    ("model/load.py", "    assert_rotates(model, checkpoint.ropes, str(checkpoint.folder))", "    pass", NUMBERS, "every load checks the rotation"),
    ("model/rotary.py", "if not away.max() <= TOLERANCE:", "if away.max() > TOLERANCE:", NUMBERS, "a frequency is a number"),
    ("train/soundness.py", "first_weight_not_finite(model, ranks)) is not None:\n        raise", "None) is not None:\n        raise", NUMBERS, "weights that are saved are numbers"),
    ("train/soundness.py", "and not ran_away(losses, loss)", "", NUMBERS, "a loss that runs away stops the run"),
]  # fmt: skip


def main() -> None:
    print("| guard | in | noticed by |\n|---|---|---|")
    unnoticed = 0
    for file, term, other, tests, what in REMOVED:
        test = caught_by(file, term, other, tests, *ALL)
        unnoticed += test is None
        print(f"| {what} | `{file}` | {test or '**nothing**'} |", flush=True)
    sys.exit(1 if unnoticed else 0)


if __name__ == "__main__":
    main()
