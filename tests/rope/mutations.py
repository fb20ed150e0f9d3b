"""Each formula of `rope/` with two of its terms exchanged, and the test that notices: `python -m tests.rope.mutations`.

Works on a copy of the sources; prints the table of docs/testing.md, and exits with 1 if a mutation goes unnoticed.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]

# file, what stands there, what is put in its place
MUTATIONS = [
    ("frequencies.py", "np.arange(0, rotary_dim, 2) / rotary_dim", "np.arange(0, rotary_dim, 2) / (rotary_dim - 2)"),
    ("frequencies.py", "window * inverse_F / (2 * math.pi)", "window / inverse_F / (2 * math.pi)"),
    ("frequencies.py", "2 * math.pi / inverse_F", "inverse_F / (2 * math.pi)"),
    ("spec.py", "self.target / self.original", "self.original / self.target"),
    ("scalings.py", "base_frequencies(theta, rotary_dim) / self.factor", "base_frequencies(theta, rotary_dim) * self.factor"),
    ("scalings.py", "max(length, original) / original - (self.factor - 1)", "max(length, original) / original + (self.factor - 1)"),
    ("scalings.py", "stretch ** (rotary_dim / (rotary_dim - 2))", "stretch ** ((rotary_dim - 2) / rotary_dim)"),
    ("scalings.py", "keep_F * inverse_F + (1 - keep_F) * inverse_F / factor", "(1 - keep_F) * inverse_F + keep_F * inverse_F / factor"),
    ("scalings.py", "(turned_F - low) / (high - low)", "(high - turned_F) / (high - low)"),
    ("scalings.py", "window / (count * 2 * math.pi)", "count / (window * 2 * math.pi)"),
    ("scalings.py", "0.1 * mscale * math.log(factor) + 1", "0.1 * math.log(factor) + mscale"),
    ("scalings.py", "math.log(factor) / math.log(original)", "math.log(original) / math.log(factor)"),
    ("scalings.py", "self.long_factor if target > original else self.short_factor", "self.short_factor if target > original else self.long_factor"),
    ("methods.py", "stretch ** (rope.rotary_dim / (rope.rotary_dim - 2))", "stretch ** ((rope.rotary_dim - 2) / rope.rotary_dim)"),
    ("methods.py", "Llama3(s, beta_slow, beta_fast)", "Llama3(s, beta_fast, beta_slow)"),
    ("methods.py", "declared * target / rope.window.target", "declared * rope.window.target / target"),
    ("methods.py", "attention_factor * yarn_attention_factor(factor) - 1", "attention_factor - yarn_attention_factor(factor) + 1"),
    ("methods.py", "inverse_F / blend(keep_F, inverse_F, window.stretch)", "blend(keep_F, inverse_F, window.stretch) / inverse_F"),
]  # fmt: skip


def caught_by(file: str, term: str, other: str, *tests: str) -> str | None:
    """Name of the first of `tests` that fails with `term` exchanged in a file of the package; None if all pass."""
    with tempfile.TemporaryDirectory() as name:
        shutil.copytree(ROOT / "src", Path(name) / "src")
        path = Path(name) / "src" / "ropewalk" / file
        text = path.read_text()
        assert text.count(term) == 1, f"{term!r} stands {text.count(term)} times in {file}"
        path.write_text(text.replace(term, other))
        command = [sys.executable, "-m", "pytest", *tests, "-x", "-q", "-p", "no:cacheprovider"]
        environment = os.environ | {"PYTHONPATH": f"{name}/src"}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    failed = re.search(r"^(?:FAILED|ERROR) \S*?::(\w+)", done.stdout, flags=re.MULTILINE)
    if failed:
        return failed[1]
    return None if done.returncode == 0 else "(does not import)"


def main() -> None:
    print("| in | term | exchanged for | caught by |\n|---|---|---|---|")
    unnoticed = 0
    for file, term, other in MUTATIONS:
        test = caught_by(f"rope/{file}", term, other, "tests/rope")
        unnoticed += test is None
        print(f"| `{file}` | `{term}` | `{other}` | {test or '**nothing**'} |", flush=True)
    sys.exit(1 if unnoticed else 0)


if __name__ == "__main__":
    main()
