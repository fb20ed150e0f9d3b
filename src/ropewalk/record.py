"""What a run leaves behind: `run.json`, written when it starts and again when it ends, also when it fails.

    Run            one command: what was given, what was resolved, on which rotations, with which code and packages
    EvalResult     one measured number in long format: one row per (question, length)

Records stand below the code that fills them, so a report can be made from files alone.
"""

import contextlib
import dataclasses
import hashlib
import json
import math
import platform
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from ropewalk.atomic import alone_in, remove_unfinished, write_text
from ropewalk.errors import OutputError, RecordError
from ropewalk.reading import parsed_json, read_bounded, shown

VERSION = 1
FILE = "run.json"
MAX_RECORD = 64 * 1024 * 1024  # bytes; one of a long evaluation has about one hundredth of it
_KINDS = {"command": str, "given": dict, "resolved": dict, "results": list}
PACKAGES = (
    "ropewalk", "torch", "transformers", "tokenizers", "safetensors", "numpy", "peft", "datasets", "pyarrow", "lm_eval",
    "rouge_score",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class EvalResult:
    """One measured number.

    `length` is in tokens: the window of a perplexity, the distance of a passkey cell, the target of a k_max.
    `stderr` is None where it cannot be had; `details` then says why. `count` is what was counted: tokens, trials.
    """

    name: str
    protocol: str
    length: int
    metric: str
    value: float | None
    stderr: float | None
    count: int
    higher_is_better: bool
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(kw_only=True)
class Run:
    """One command's record. `status` is started, done, failed or interrupted."""

    command: str
    given: dict[str, Any]
    resolved: dict[str, Any]
    ropes: dict[str, Any]
    seed: int | None
    device: dict[str, Any] = field(default_factory=dict)
    inputs: list[dict[str, Any]] = field(default_factory=list)
    results: list[EvalResult] = field(default_factory=list)
    version: int = VERSION
    code: dict[str, Any] = field(default_factory=lambda: code_state())
    packages: dict[str, str] = field(default_factory=lambda: package_versions())
    started: str = field(default_factory=lambda: now())
    finished: str | None = None
    status: str = "started"

    def write(self, folder: Path) -> None:
        """Writes `run.json` into `folder`, whole or not at all."""
        write_json(folder / FILE, dataclasses.asdict(self))

    def finish(self, folder: Path, status: str = "done") -> None:
        self.finished, self.status = now(), status
        self.write(folder)

    @contextlib.contextmanager
    def recorded(self, folder: Path) -> Iterator["Run"]:
        """Writes the record at the start and at the end of a block, with how it ended.

        An OSError of the block, such as a full disk, becomes an OutputError that says how to go on. No other process can
        do the same in this folder meanwhile. Raises OutputError where one is, or has been since it was looked at.
        """
        with alone_in(folder):
            self._require_unchanged(folder)
            remove_unfinished(folder)
            self.write(folder)
            with disk_errors(folder):
                yield from self._ended(folder)

    def _require_unchanged(self, folder: Path) -> None:
        """What is there is still to be done, and is this same work: it was so before the folder was locked."""
        if not (folder / FILE).exists():
            return
        there = read_run(folder)
        if there.status == "done" or there.given != json.loads(as_json(self.given)):
            raise OutputError(
                f"{folder} was written to by another process just now (status {there.status}).\n"
                "  Every output is the work of one run.\n"
                "  Look at what is there, or give another --out."
            )

    def _ended(self, folder: Path) -> Iterator["Run"]:
        try:
            yield self
            self.finish(folder)
        except KeyboardInterrupt:
            self.finish(folder, "interrupted")
            raise
        except BaseException as error:
            self.resolved["error"] = f"{type(error).__name__}: {error}"
            with contextlib.suppress(OutputError):  # the disk may be what failed; the first error is the one to show
                self.finish(folder, "failed")
            raise


@contextlib.contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turns an OSError of the work in a folder, such as a full disk, into an OutputError that says how to go on."""
    try:
        yield
    except (OSError, OutputError) as error:
        raise OutputError(
            f"the work in {folder} stopped: {str(error).splitlines()[0]}\n"
            "  What was done so far is kept.\n"
            "  Free some space or mend the path, then go on with --resume."
        ) from error


def read_run(folder: str | Path) -> Run:
    """The record in `folder`. Raises RecordError when there is none or it is not one of ours."""
    folder = Path(folder)
    path = folder / FILE if folder.is_dir() else folder
    try:
        return run_of(read_bounded(path, MAX_RECORD), path)
    except FileNotFoundError:
        raise RecordError(
            f"no record in {folder}: {FILE} is missing.\n"
            "  Every folder made by ropewalk holds one.\n"
            "  Give a folder made by `ropewalk evaluate`, `tune` or `run`."
        ) from None
    except (OSError, ValueError) as error:
        if isinstance(error, RecordError):
            raise
        raise RecordError(
            f"the record {path} cannot be read: {error}.\n"
            "  Expected the JSON that a run leaves behind.\n"
            "  Mend the path or the permissions, or make it again."
        ) from None


def is_run_folder(folder: Path) -> bool:
    """Whether a folder holds a record of ours, of whatever version and however it ended."""
    try:
        content = parsed_json(read_bounded(folder / FILE, MAX_RECORD))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and {"version", "command", "given", "status"} <= content.keys()


def run_of(raw: bytes, path: Path) -> Run:
    """The record in the text of a `run.json`. Raises RecordError, or ValueError where it is no JSON."""
    content = parsed_json(raw)
    known = {f.name for f in dataclasses.fields(Run)}
    if not isinstance(content, dict) or content.get("version") != VERSION or not known >= content.keys():
        raise RecordError(
            f"{path} is not a record of this version of ropewalk.\n"
            f"  Expected version {VERSION} and the keys that it has.\n"
            "  Make it again, or use the version that wrote it."
        )
    try:
        for key, kind in _KINDS.items():
            if not isinstance(content[key], kind):
                raise TypeError(f"{key} is {shown(content[key])}")
        content["results"] = [EvalResult(**row) for row in content["results"]]
        return Run(**content)
    except (KeyError, TypeError) as error:
        raise RecordError(
            f"{path} is not a whole record: {error}.\n  A record has every key, each of its kind.\n  Make it again."
        ) from None


def write_json(path: Path, content: Any) -> None:
    """Writes JSON, whole or not at all. Numbers that are not finite become null."""
    write_text(path, as_json(content) + "\n")


def as_json(content: Any) -> str:
    """JSON that every reader takes: numbers that are not finite become null."""
    return json.dumps(_finite(content), indent=2, ensure_ascii=False, allow_nan=False, default=str)


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def sha256_file(path: Path) -> str:
    """Hex digest of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def input_file(path: Path) -> dict[str, Any]:
    """How a file that was read is named in `inputs`."""
    return {"path": str(path), "bytes": path.stat().st_size, "sha256": sha256_file(path)}


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def package_versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions


def code_state() -> dict[str, Any]:
    """The commit this code was run from, and whether files differ from it; empty outside a checkout."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return {}

    def git(*arguments: str) -> str:
        # status would write the index anew, and leave its lock behind where the disk gives out
        command = ["git", "--no-optional-locks", "-C", str(root), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "changed": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return {}
