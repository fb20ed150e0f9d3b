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
import os
import platform
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from ropewalk.errors import OutputError, RecordError

VERSION = 1
FILE = "run.json"
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

        An OSError of the block, such as a full disk, becomes an OutputError that says how to go on.
        """
        self.write(folder)
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
            if isinstance(error, OSError | OutputError):
                raise OutputError(
                    f"the work in {folder} stopped: {str(error).splitlines()[0]}\n"
                    "  What was done so far is kept.\n"
                    "  Free some space or mend the path, then go on with --resume."
                ) from error
            raise


def read_run(folder: Path) -> Run:
    """The record in `folder`. Raises RecordError when there is none or it is not one of ours."""
    path = folder / FILE if folder.is_dir() else folder
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RecordError(
            f"no record in {folder}: {FILE} is missing.\n"
            "  Every folder made by ropewalk holds one.\n"
            "  Give a folder made by `ropewalk evaluate`, `tune` or `run`."
        ) from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise RecordError(f"the record {path} cannot be read: {error}.") from None
    known = {f.name for f in dataclasses.fields(Run)}
    if not isinstance(content, dict) or content.get("version") != VERSION or not known >= content.keys():
        raise RecordError(
            f"{path} is not a record of this version of ropewalk (version {VERSION}).\n"
            "  Make it again, or use the version that wrote it."
        )
    try:
        content["results"] = [EvalResult(**row) for row in content["results"]]
        return Run(**content)
    except (KeyError, TypeError) as error:
        raise RecordError(f"{path} is not a whole record: {error}.\n  Make it again.") from None


def write_json(path: Path, content: Any) -> None:
    """Writes JSON, whole or not at all. Numbers that are not finite become null."""
    write_text(path, as_json(content) + "\n")


def as_json(content: Any) -> str:
    """JSON that every reader takes: numbers that are not finite become null."""
    return json.dumps(_finite(content), indent=2, ensure_ascii=False, allow_nan=False, default=str)


def write_text(path: Path, text: str) -> None:
    """Writes beside `path` and renames into place. Raises OutputError when the disk will not have it."""
    try:
        handle, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(text.encode("utf-8", errors="replace"))  # JSON can hold half a surrogate pair
                file.flush()
                os.fsync(file.fileno())
            os.chmod(beside, 0o644)
            os.replace(beside, path)
        except BaseException:
            Path(beside).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}.") from error


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
