"""A plan for people: one table, its policies side by side, and the sentences around it."""

from typing import Any

from rich.markup import escape
from rich.table import Table

PARTS = {
    "weights": "weights",
    "copies": "  16-bit copies, gathered weights",
    "gradients": "gradients",
    "optimizer": "AdamW's moments",
    "kept": "kept by all layers",
    "working": "one layer at work, or",
    "loss": "  a chunk of the loss",
    "total": "at the worst moment",
    "host": "in the host's memory",
}


def plan_table(answer: dict[str, Any]) -> Table:
    """Memory of one device by part, and time, for each policy."""
    run, devices = answer["run"], answer["devices"]
    own = devices["type"] == "cpu"
    where = "this machine's CPU" if own else f"{devices['count']} x {devices['type'].upper()}"
    size = f"{_size(devices['memory_bytes'])}{'' if devices['count'] == 1 else ' each'}"
    title = f"{answer['model']} at {run['length']:,} tokens on {where}, {size}"
    table = Table(title=escape(title))
    table.add_column("on one device")
    for entry in answer["policies"]:
        chosen = entry["policy"] == answer["chosen"]
        table.add_column(entry["policy"], justify="right", style="bold" if chosen else None)
    for part, words in PARTS.items():
        sizes = [entry["memory"][part] for entry in answer["policies"]]
        if any(sizes):
            table.add_row(words, *(_size(size) for size in sizes), end_section=part == "total")
    policies = answer["policies"]
    table.add_row(f"fits into {_size(devices['usable_bytes'])}", *("yes" if e["fits"] else "no" for e in policies))
    table.add_row("seconds a step", *(_short(e["seconds_a_step"]) for e in policies))
    table.add_row(f"hours, {run['steps']:,} steps", *(_short(e["hours"]) for e in policies))
    if not own:
        table.add_row("GPU-hours", *(_short(e["gpu_hours"]) for e in policies))
    return table


def plan_lines(answer: dict[str, Any]) -> str:
    """What stands below the table: what is trained, the choice or what to change, notes and assumptions."""
    run, trained = answer["run"], answer["trained_parameters"]
    lines = [
        f"{answer['parameters']:,} parameters, {trained:,} trained ({run['adapter']}); {run['sequences']} sequences of "
        f"{run['length']:,} tokens a step, {run['tokens']:,} tokens in all, in {run['dtype']}",
    ]
    chosen = next((entry for entry in answer["policies"] if entry["policy"] == answer["chosen"]), None)
    if chosen is None:
        lines.append("nothing fits:")
        lines += [f"  {said}" for said in answer["advice"]]
    else:
        lines.append(
            f"the fastest that fits: {chosen['policy']}, {_hours(chosen['hours'])}, "
            f"{chosen['tokens_a_second']:,.0f} tokens a second"
        )
    layout = answer["devices"]["layout"]
    if answer["devices"]["count"] > 1:
        lines.append(
            f"layout: {layout['data']} for data x {layout['sequence']} for each sequence "
            f"(tune --sequence-parallel {layout['sequence']})"
        )
    if answer["correction"]:
        lines.append(f"times are measured: {answer['correction']['factor']:.2f} of the assumed ones")
    lines += [f"note: {said}" for said in answer["notes"]]
    lines += [f"assumed: {said}" for said in answer["assumptions"]]
    return "\n".join(lines)


def _size(count: int) -> str:
    if count == 0:
        return "–"
    return f"{count / 1e9:,.1f} GB" if count >= 10**9 else f"{count / 1e6:,.1f} MB"


def _short(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def _hours(hours: float) -> str:
    return f"{hours:,.1f} hours" if hours >= 1 else f"{60 * hours:,.1f} minutes"
