"""Records as tables and lines for a terminal."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from ropewalk.errors import RecordError
from ropewalk.record import EvalResult, Run, read_run
from ropewalk.reports.kinds import GRIDS, interval, kind
from ropewalk.reports.sources import mapping
from ropewalk.reports.wording import signed
from ropewalk.rope.methods import METHOD_NAMES
from ropewalk.runtimes import Verdict

SHADES = "▁▂▃▄▅▆▇█"


def result_table(run: Run) -> Table:
    """The rows of one evaluation, each with how sure it is; grids and losses by position are bars below."""
    table = Table(title=escape(str(run.resolved["subject"]["name"])))
    for column in ("question", "length", "value", "± stderr, or 95 %", "count"):
        table.add_column(column, justify="left" if column == "question" else "right")
    gate = mapping(run.resolved.get("gate"))
    failed = gate.get("failed") or []
    for row in run.results:
        if (asked := _question(row)) is None:
            continue
        asked += " beyond the window" if mapping(row.details).get("beyond_window") else ""
        asked += ", fails the gate" if kind(row) == "change" and row.name in failed else ""
        table.add_row(escape(asked), str(row.length), _number(row), _error(row), str(row.count))
    table.caption_justify = "left"
    judged = [f"gate of {gate.get('max_drop')} points beyond noise: {'failed' if failed else 'passed'}"] if gate else []
    table.caption = "\n".join([*_bar_lines(run.results), *judged]) or None
    return table


def comparison_table(out: Path, run: Run) -> Table:
    """Every arm of a run side by side: perplexity by window, and k_max."""
    evaluations = []
    for child in run.resolved["children"]:
        try:
            record = read_run(out / child)
        except RecordError:
            continue
        if record.command == "evaluate" and child != "base/own-window":
            evaluations.append(record)
    lengths = sorted({row.length for record in evaluations for row in record.results if kind(row) == "perplexity"})
    table = Table(title="perplexity by window, and the effective window k_max, in tokens")
    table.add_column("arm")
    for length in lengths:
        table.add_column(str(length), justify="right")
    table.add_column("k_max", justify="right")
    for record in evaluations:
        found = {row.length: row for row in record.results if kind(row) == "perplexity"}
        reach = next((row for row in record.results if kind(row) == "passkey" and row.metric == "k_max"), None)
        cells = [_number(found[length]) if length in found else "" for length in lengths]
        of = "" if reach is None or reach.value is None else f"{reach.value:.0f} of {reach.length}"
        table.add_row(arm_name(record.resolved["subject"]), *cells, of)
    return table


def verdict_table(model: str, verdicts: list[Verdict]) -> Table:
    """How each runtime reads a checkpoint, a row each."""
    colours = {"exact": "green", "exact with a flag": "yellow", "silently wrong": "bold red", "refused": "red"}
    table = Table(title=escape(f"how runtimes will read {model}"), show_lines=True)
    for column in ("runtime", "read from", "verdict", "why"):
        table.add_column(column, overflow="fold")
    for verdict in verdicts:
        outcome = f"[{colours[verdict.outcome]}]{verdict.outcome}[/]"
        table.add_row(verdict.runtime, verdict.version, outcome, escape(verdict.sentence))
    return table


def arm_name(subject: dict[str, Any]) -> str:
    """What people call an evaluated model.

    >>> arm_name({"method": "none", "target": 1024, "tuned": True})
    'direct 1024, tuned'
    """
    if subject.get("method") is None:
        return "base, tuned" if subject.get("tuned") else "base"
    name = METHOD_NAMES.get(subject["method"], subject["method"])
    return f"{name} {subject['target']}, {'tuned' if subject['tuned'] else 'untuned'}"


def inspection_lines(answer: dict[str, Any]) -> list[str]:
    """What `inspect` found, for people: a head, then a line a pair."""
    now, after = answer["now"], answer.get("after")
    lines = [
        f"{answer['model']}: {answer['model_type']}, {answer['parameters']:,} parameters",
        f"  now    {now['in_words']}",
    ]
    if after:
        lines.append(f"  after  {after['in_words']}, attention factor {after['attention_factor']:.4g}")
        lines.append(f"         written as {after['written_as']}")
    lines += [f"  note   {note}" for note in answer["layers"]]
    lines += [f"  twice  {said}" for said in answer["contradictions"]]
    lines += ["", *_cost_lines(answer), "", *_pair_lines(now, after)]
    return lines


def _cost_lines(answer: dict[str, Any]) -> list[str]:
    """What a whole window costs, now and after."""
    lines = [f"  a window of   {'KV cache, 16 bit':>18}   {'attention / other work':>24}"]
    for cost in answer["cost"]:
        lines.append(
            f"  {cost['length']:11,d}   {cost['kv_cache_bytes'] / 2**20:14,.1f} MiB   {cost['attention_share']:23.2f}x"
        )
    return lines


PICTURE = 44  # columns


def _pair_lines(now: dict[str, Any], after: dict[str, Any] | None) -> list[str]:
    """Each pair's wavelength on a logarithmic scale: ● now, ○ after; a bar at the window, before and after."""
    shown = [now] if after is None else [now, after]
    longest = max(pair["wavelength"] for side in shown for pair in side["pairs"])
    scale = PICTURE / math.log(max(longest, *(side["window"] for side in shown)) * 1.2 / 2)

    def column(tokens: float) -> int:
        return max(0, min(PICTURE - 1, int(math.log(max(tokens, 2) / 2) * scale)))

    head = "  pair  wavelength     turns  "
    note = "● wavelength, │ window" if after is None else "● now, ○ after; │ window now, ┆ after"
    lines = [head + note]
    for j, pair in enumerate(now["pairs"]):
        row = [" "] * PICTURE
        row[column(now["window"])] = "│"
        if after:
            row[column(after["window"])] = "┆"
            row[column(after["pairs"][j]["wavelength"])] = "○"
        row[column(pair["wavelength"])] = "●"
        never = "" if pair["turns_in_window"] >= 1 else "  never a whole turn"
        lines.append(
            f"  {j:4d}  {pair['wavelength']:10.1f}  {pair['turns_in_window']:8.2f}  {''.join(row).rstrip()}{never}"
        )
    unturned = sum(pair["turns_in_window"] < 1 for pair in now["pairs"])
    lines.append(
        f"  {unturned} of {len(now['pairs'])} pairs never complete a turn within the window of {now['window']} tokens"
    )
    return lines


def _question(row: EvalResult) -> str | None:
    """What a row answers, in words; None for one of many that are shown together as bars."""
    about, metric = kind(row), row.metric
    if about in ("loss-by-position", "passkey-anywhere") or (about in GRIDS and metric != "k_max"):
        return None
    estimated = ", estimated" if mapping(row.details).get("windows_sampled") else ""
    return {
        "perplexity": f"perplexity{estimated}",
        "definition": f"perplexity, {row.name.removeprefix('perplexity-')}{estimated}",
        "passkey": "k_max",
        "passkey-near-start": "k_max, key near the start",
        "passkey-landmark": "Landmark's passkey",
        "task": row.name + ", normalized" * (metric == "accuracy_norm"),
        "change": f"{row.name} against the base",
    }.get(about, f"{row.name} {metric}")


def _number(row: EvalResult) -> str:
    if row.value is None:
        return "over 1e300" if row.metric == "perplexity" else "–"
    if row.metric == "k_max":
        return f"{row.value:.0f}"
    return (
        f"{signed(row.value)} points"
        if kind(row) == "change"
        else _percent(row.value)
        if _is_share(row)
        else f"{row.value:.2f}"
    )


def _error(row: EvalResult) -> str:
    """The interval of a share or a change, else the standard error."""
    bounds = interval(row) if _is_share(row) or kind(row) == "change" else None
    if bounds is None:
        return "–" if row.stderr is None else f"{row.stderr:.3g}"
    return " to ".join(signed(bound) if kind(row) == "change" else _percent(bound) for bound in bounds)


def _is_share(row: EvalResult) -> bool:
    return kind(row) in ("task", "passkey-landmark")


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _bar_lines(rows: Sequence[EvalResult]) -> list[str]:
    """A line of bars for each grid, for keys anywhere at each length, and for the loss by position."""
    lines = []
    for name in GRIDS:
        cells = [row for row in rows if kind(row) == name and row.metric == "accuracy"]
        if cells:
            lines.append(f"{name}, {cells[0].length} to {cells[-1].length} tokens back: {_bars(cells)}")
    anywhere = [row for row in rows if kind(row) == "passkey-anywhere"]
    for length in sorted({row.length for row in anywhere}):
        cells = [row for row in anywhere if row.length == length]
        lines.append(f"passkey-anywhere in {length} tokens, start to end: {_bars(cells)}")
    losses = [row for row in rows if kind(row) == "loss-by-position" and row.value is not None]
    if losses:
        values = [row.value or 0.0 for row in losses]
        low, high = min(values), max(values)
        bars = "".join(_shade((value - low) / (high - low) if high > low else 0.5) for value in values)
        lines.append(f"loss by position up to {losses[-1].length} tokens, {low:.2f} to {high:.2f} nats: {bars}")
    return lines


def _bars(cells: Sequence[EvalResult]) -> str:
    return "".join(_shade(row.value or 0.0) for row in cells)


def _shade(part: float) -> str:
    return SHADES[round(min(max(part, 0.0), 1.0) * (len(SHADES) - 1))]
