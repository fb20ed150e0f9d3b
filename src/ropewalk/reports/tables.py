"""The page's tables: results, other measurements, and what a reader needs to repeat or to doubt them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from ropewalk.reports.arms import Arm, Measured, subject_arm, tuned_arm
from ropewalk.reports.compare import Point, at, series
from ropewalk.reports.sources import Source, counted, listed, mapping, number, whole
from ropewalk.reports.wording import SPACE, date_text, duration, joined, measured_text, method_label, seconds_between

NOTHING = "–"


@dataclass(frozen=True)
class Cell:
    text: str
    error: str = ""
    beyond: bool = False
    best: bool = False


@dataclass(frozen=True)
class Row:
    """One arm's line in the table of results; all texts."""

    arm: Arm
    method: str
    state: str
    target: str
    perplexities: tuple[Cell, ...]
    k_max: str
    tuning: tuple[str, str, str, str]  # steps, tokens, time, learning rate
    unfinished: bool


@dataclass(frozen=True)
class Results:
    lengths: tuple[int, ...]
    rows: tuple[Row, ...]
    models: bool  # whether several models are shown, so that a row has to name its own


def results(entries: Sequence[Measured], items: Sequence[Source]) -> Results:
    """A row an arm. The best tuned perplexity at each target is marked, as in the verdict."""
    lengths = tuple(sorted({length for entry in entries for length in entry.perplexity}))
    curves = {entry.arm: series(entry) for entry in entries}
    lowest: dict[tuple[str, int | None], float] = {}
    for arm, curve in curves.items():
        point = at(curve, arm.target)
        if point and arm.tuned:
            key = (arm.name, arm.target)
            lowest[key] = min(point.value, lowest.get(key, point.value))
    tunings = [source for source in items if source.run.command == "tune"]
    rows = []
    for entry in entries:
        arm, curve = entry.arm, curves[entry.arm]
        best = lowest.get((arm.name, arm.target)) if arm.tuned else None
        cells = tuple(_cell(at(curve, length), best if length == arm.target else None) for length in lengths)
        extra = arm.label.removeprefix(arm.plain)
        state = "original" if arm.is_base else "tuned" if arm.tuned else "untuned"
        target = NOTHING if arm.target is None else str(arm.target)
        reach = k_max_text(entry)
        name, spent = method_label(arm) + extra, _tuning(arm, tunings)
        rows.append(Row(arm, name, state, target, cells, reach, spent, entry.unfinished))
    return Results(lengths, tuple(rows), len({entry.arm.name for entry in entries}) > 1)


def k_max_text(entry: Measured) -> str:
    """The reach in the grid of the arm's own target, or in each grid that it was asked in."""
    reaches = {length: grid.k_max for length, grid in sorted(entry.grids.items()) if grid.k_max is not None}
    if not reaches:
        return NOTHING
    if entry.arm.target in reaches:
        return str(reaches[entry.arm.target])
    if len(set(reaches.values())) == 1:
        return str(next(iter(reaches.values())))
    return ", ".join(f"{k_max} of {length}" for length, k_max in reaches.items())


def _cell(point: Point | None, best: float | None) -> Cell:
    if point is None:
        return Cell(NOTHING)
    text, _, error = measured_text(point.value, point.stderr).partition(SPACE)
    return Cell(text, error, point.beyond, best is not None and point.value == best)


def _tuning(arm: Arm, tunings: Sequence[Source]) -> tuple[str, str, str, str]:
    if not arm.tuned:
        return NOTHING, NOTHING, NOTHING, NOTHING
    source = next((source for source in tunings if tuned_arm(subject_arm(source), [arm])), None)
    resolved = mapping(source.run.resolved) if source else {}
    batch = whole(resolved.get("batch_tokens"))
    tokens = arm.tokens or (arm.steps * batch if arm.steps and batch else None)
    seconds = seconds_between(source.run.started, source.run.finished) if source else None
    rate = arm.learning_rate
    return (
        f"{arm.steps:,}" if arm.steps else NOTHING,
        f"{tokens:,}" if tokens else NOTHING,
        NOTHING if seconds is None else duration(seconds),
        f"{rate:g}" if rate else NOTHING,
    )


def other_rows(entries: Iterable[Measured]) -> list[dict[str, str]]:
    """Measurements that no figure shows (short tasks, summaries), one line each."""
    rows = []
    for entry in entries:
        for (name, metric, length), row in sorted(entry.other.items()):
            value, stderr = number(row.value), number(row.stderr)
            text = NOTHING if value is None else measured_text(value, stderr)
            asked = {"question": name, "metric": metric, "length": str(length)}
            rows.append({"arm": entry.arm.place, **asked, "value": text, "count": str(row.count)})
    return rows


def protocols(items: Iterable[Source]) -> list[tuple[str, str]]:
    """(question, protocol) as recorded, each once, and why a standard error is missing where it is."""
    found: dict[tuple[str, str], None] = {}
    for row in (row for source in items for row in source.run.results):
        found[str(row.name), str(row.protocol)] = None
        because = mapping(row.details).get("stderr_reason")
        if because and row.stderr is None:
            found[str(row.name), f"no standard error: {because}"] = None
    return sorted(found)


def record_rows(items: Sequence[Source], arms: Sequence[Arm | None]) -> list[dict[str, str]]:
    """One line a record: what, how it ended, when, how long, seed, device, code. `arms` is in the order of `items`."""
    rows = []
    for source, arm in zip(items, arms, strict=True):
        run = source.run
        code = mapping(run.code)
        commit = str(code.get("commit") or "")[:10]
        seconds = seconds_between(run.started, run.finished)
        rows.append(
            {
                "what": str(run.command),
                "about": arm.place if arm else "",
                "folder": source.name,
                "status": str(run.status),
                "started": date_text(run.started),
                "took": NOTHING if seconds is None else duration(seconds),
                "seed": NOTHING if run.seed is None else str(run.seed),
                "device": facts(run.device) or NOTHING,
                "version": str(mapping(run.packages).get("ropewalk") or NOTHING),
                "commit": f"{commit}, changed" if commit and code.get("changed") else commit or NOTHING,
            }
        )
    return rows


def input_rows(items: Iterable[Source]) -> list[dict[str, str]]:
    """Files that were read, each once: the end of the path, bytes, hash. Whole paths would tell of a machine."""
    found: dict[tuple[str, str, str], None] = {}
    for entry in (mapping(entry) for source in items for entry in listed(source.run.inputs)):
        size = whole(entry.get("bytes"))
        tail = "/".join(PurePath(str(entry.get("path") or NOTHING)).parts[-2:])
        found[tail, f"{size:,}" if size else NOTHING, str(entry.get("sha256") or NOTHING)] = None
    return [{"path": tail, "bytes": size, "sha256": digest} for tail, size, digest in sorted(found)]


def package_rows(items: Iterable[Source]) -> list[tuple[str, str]]:
    """(packages, in how many records), each set of versions once."""
    found: dict[str, int] = {}
    for source in items:
        text = facts(source.run.packages)
        found[text] = found.get(text, 0) + 1
    return [(text, counted(count, "record")) for text, count in found.items() if text]


def stages(items: Iterable[Source]) -> list[tuple[str, float]]:
    """(name, seconds) of each stage that a pipeline timed."""
    found = []
    for stage in (mapping(stage) for source in items for stage in listed(mapping(source.run.resolved).get("stages"))):
        seconds = number(stage.get("seconds"))
        if seconds is not None and seconds >= 0:
            found.append((str(stage.get("name") or NOTHING), seconds))
    return found


def warnings(items: Sequence[Source], entries: Sequence[Measured], notes: Iterable[str]) -> list[str]:
    """What a reader must know before believing the page: unfinished records, mixed protocols, parts left out."""
    found = []
    for source in items:
        if source.run.status != "done":
            error = mapping(source.run.resolved).get("error")
            ended = f"{source.run.status}{f' ({error})' if error else ''}"
            what = f"{source.name} ({source.run.command})"
            found.append(f"The record {what} is not done: {ended}. What it holds is shown.")
        found += [f"{source.name}: {warning}" for warning in listed(mapping(source.run.resolved).get("warnings"))]
    used: dict[int, set[str]] = {}
    for entry in entries:
        for length, row in entry.perplexity.items():
            used.setdefault(length, set()).add(str(row.protocol))
    mixed = [str(length) for length, texts in sorted(used.items()) if len(texts) > 1]
    if mixed:
        found.append(f"Perplexities at {joined(mixed)} were measured by different protocols and do not compare.")
    return [*dict.fromkeys([*found, *notes])]


def facts(values: Any) -> str:
    """`torch 2.1, numpy 1.26` of a flat mapping; what is nested is left out."""
    pairs = mapping(values).items()
    return ", ".join(f"{key} {value}" for key, value in pairs if isinstance(value, str | int | float) and value != "")
