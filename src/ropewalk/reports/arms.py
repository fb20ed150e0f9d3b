"""Who was measured: records -> one `Measured` per arm, with everything known about it merged.

An arm is a model in one state: the base, or a method at a target, tuned or not. One arm may come in several records
(the base evaluated at two sets of lengths); two arms that differ in how they were tuned never become one.
"""

import dataclasses
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from ropewalk.record import EvalResult
from ropewalk.reports.grids import Grid, grids
from ropewalk.reports.sources import Source, listed, mapping, number, whole
from ropewalk.rope.methods import METHOD_NAMES

COMMON = ("pi", "yarn", "none", "ntk")  # these keep their colour from page to page; others take what is left
UNRECORDED = "unrecorded"  # the method of an arm whose record does not name one
TINTS = 8  # the base, and seven colours told apart by any eye; an eighth method starts over


@dataclass(frozen=True)
class Arm:
    """One model in one state. `label` and `tint` are filled in once all arms of a page are known."""

    name: str
    method: str | None
    target: int | None
    tuned: bool
    steps: int | None = None
    learning_rate: float | None = None
    folder: str | None = None
    original: int | None = field(default=None, compare=False)
    window: int | None = field(default=None, compare=False)
    tokens: int | None = field(default=None, compare=False)
    label: str = field(default="", compare=False)
    tint: int = field(default=0, compare=False)

    @property
    def is_base(self) -> bool:
        return self.method is None and not self.tuned

    @property
    def plain(self) -> str:
        """The label before any qualifier: base, PI, PI untuned."""
        if self.method is None:
            return "base tuned" if self.tuned else "base"
        return METHOD_NAMES.get(self.method, self.method) + ("" if self.tuned else " untuned")

    @property
    def place(self) -> str:
        """The label with the target: PI, to 1024."""
        return f"{self.label}, to {self.target}" if self.target else self.label


@dataclass
class Measured:
    """All that is known about one arm."""

    arm: Arm
    perplexity: dict[int, EvalResult] = field(default_factory=dict)
    grids: dict[int, Grid] = field(default_factory=dict)
    other: dict[tuple[str, str, int], EvalResult] = field(default_factory=dict)
    wavelengths: tuple[float, ...] = ()
    unfinished: bool = False


def subject_arm(source: Source) -> Arm:
    """The arm that a record is about. Keys that are missing stay None; a record without a subject gets one by name."""
    resolved = mapping(source.run.resolved)
    subject = mapping(resolved.get("subject"))
    tuned = bool(subject.get("tuned", source.run.command == "tune"))
    method = subject.get("method", UNRECORDED)
    method = None if method is None else str(method)
    window = whole(subject.get("window"))
    target = whole(subject.get("target")) or (None if method is None and not tuned else window)
    rate = number(subject.get("learning_rate")) or number(resolved.get("learning_rate"))
    model = subject.get("model") if source.run.command == "evaluate" else None
    return Arm(
        name=str(subject.get("name") or source.name),
        method=method,
        target=target if method is not None or tuned else None,
        tuned=tuned,
        steps=(whole(subject.get("tuning_steps")) or whole(resolved.get("steps"))) if tuned else None,
        learning_rate=rate if tuned else None,
        # Two tunings that differ only in their seed leave two folders; the folder's place may change, its name not.
        folder=PurePath(str(model)).name if tuned and model else None,
        original=whole(subject.get("original")),
        window=window,
        tokens=whole(subject.get("tuning_tokens")) if tuned else None,
    )


def measured(items: Sequence[Source]) -> tuple[tuple[Measured, ...], tuple[str, ...]]:
    """The arms that were evaluated, in the order in which a page shows them, and notes on what clashed.

    Where two records disagree about one number, the one finished later stands and a note says so.
    """
    found: dict[Arm, Measured] = {}
    notes: list[str] = []
    evaluations = [source for source in items if source.run.command == "evaluate"]
    for source in sorted(evaluations, key=lambda source: str(source.run.finished or source.run.started)):
        arm = subject_arm(source)
        entry = found.setdefault(arm, Measured(arm))
        entry.arm = _filled(entry.arm, arm)
        entry.unfinished |= source.run.status != "done"
        entry.wavelengths = entry.wavelengths or wavelengths(mapping(source.run.ropes).get("model"))
        clashes = _take(entry, source.run.results)
        if clashes:
            what = "; ".join(clashes)
            notes.append(f"{arm.name}, {arm.plain}: measured more than once, the latest is shown ({what}).")
    labels = labelled(found)
    entries = [dataclasses.replace(entry, arm=_named(entry.arm, labels)) for entry in found.values()]
    return tuple(sorted(entries, key=lambda entry: arm_order(entry.arm))), tuple(notes)


def labelled(arms: Iterable[Arm]) -> dict[Arm, Arm]:
    """Each arm with its label and tint. Arms that would share a label are told apart by how they were tuned."""
    arms = list(arms)
    rare = sorted({arm.method for arm in arms if arm.method is not None} - set(COMMON))
    tints: dict[str | None, int] = {None: 0} | {method: tint for tint, method in enumerate([*COMMON, *rare], start=1)}
    named = {}
    for arm in arms:
        alike = (arm.name, arm.target, arm.plain)
        twins = [other for other in arms if (other.name, other.target, other.plain) == alike]
        qualifiers = _qualifiers(arm, twins)
        label = f"{arm.plain} ({', '.join(qualifiers)})" if qualifiers else arm.plain
        tint = tints[arm.method]
        named[arm] = dataclasses.replace(arm, label=label, tint=tint if tint < TINTS else 1 + (tint - 1) % (TINTS - 1))
    return named


def page_arms(items: Sequence[Source], entries: Sequence[Measured]) -> list[Arm | None]:
    """The arm of each record under the name it has on the page, whether it was evaluated or only tuned or extended."""
    known = [entry.arm for entry in entries]
    found = [None if source.run.command == "run" else subject_arm(source) for source in items]
    same = {own: own for own in known}
    found = [arm and (same.get(arm) or tuned_arm(arm, known) or arm) for arm in found]
    named = labelled([*known, *(arm for arm in found if arm and not arm.label)])
    return [named[arm] if arm and not arm.label else arm for arm in found]


def described(items: Sequence[Source], arms: Sequence[Arm | None], entries: Sequence[Measured]) -> tuple[Measured, ...]:
    """`entries`, and an entry without measurements for each arm that was only extended or tuned; with wavelengths.

    `arms` is in the order of `items`, as from `page_arms`.
    """
    found = {entry.arm: dataclasses.replace(entry) for entry in entries}
    for source, arm in zip(items, arms, strict=True):
        if arm is None or source.run.command not in ("extend", "tune"):
            continue
        ropes = mapping(source.run.ropes)
        own = found.setdefault(arm, Measured(arm))
        own.wavelengths = own.wavelengths or wavelengths(ropes.get("after"))
        before = wavelengths(ropes.get("before"), unscaled=True)
        if before:
            base = Arm(arm.name, None, None, False, original=arm.original, label="base")
            own = found.setdefault(base, Measured(base))
            own.wavelengths = own.wavelengths or before
    return tuple(sorted(found.values(), key=lambda entry: arm_order(entry.arm)))


def tuned_arm(tuning: Arm, known: Iterable[Arm]) -> Arm | None:
    """The evaluated arm that a tuning made: same model, method, target, steps and rate, as far as both say."""

    def agrees(arm: Arm) -> bool:
        exact = ("name", "method", "target", "tuned")
        pairs = ((arm.steps, tuning.steps), (arm.learning_rate, tuning.learning_rate))
        return all(getattr(arm, name) == getattr(tuning, name) for name in exact) and all(
            None in pair or pair[0] == pair[1] for pair in pairs
        )

    return next((arm for arm in known if agrees(arm)), None)


def arm_order(arm: Arm) -> tuple[Any, ...]:
    """Base first, then by target; methods in palette order, direct tuning last, each untuned before tuned."""
    last = arm.method == "none"
    return (arm.name, arm.target or 0, not arm.is_base, last, arm.tint, str(arm.method), arm.tuned, arm.label)


def wavelengths(ropes: Any, unscaled: bool = False) -> tuple[float, ...]:
    """Tokens per full turn of each rotary pair, 2 pi / inverse frequency, of the layers that see the whole window.

    With `unscaled`, none where the window is longer than the one trained on: tuning may start from a model that is
    extended already, and what it calls before is not the base.
    """
    layers = mapping(ropes)
    rope = mapping(layers.get("full_attention") or next(iter(layers.values()), None))
    if unscaled and rope.get("window") != rope.get("original_window"):
        return ()
    inverse = [number(value) for value in listed(rope.get("inverse_frequencies"))]
    return tuple(math.tau / value for value in inverse if value is not None and value > 0)


def _qualifiers(arm: Arm, twins: Sequence[Arm]) -> list[str]:
    parts = []
    if len({twin.steps for twin in twins}) > 1:
        parts.append(f"{arm.steps or '?'} steps")
    if len({twin.learning_rate for twin in twins}) > 1:
        parts.append(f"lr {arm.learning_rate or '?'}")
    if not parts and len({twin.folder for twin in twins}) > 1:
        parts.append(str(arm.folder))
    return parts


def _named(arm: Arm, labels: dict[Arm, Arm]) -> Arm:
    return dataclasses.replace(arm, label=labels[arm].label, tint=labels[arm].tint)


def _filled(arm: Arm, other: Arm) -> Arm:
    """`arm` with what it lacked and `other` knows."""
    lacking = {name: getattr(arm, name) or getattr(other, name) for name in ("original", "window", "tokens")}
    return dataclasses.replace(arm, **lacking)


def _take(entry: Measured, rows: Sequence[EvalResult]) -> list[str]:
    """Puts one record's rows under `entry`; returns what they replaced with another value."""
    clashes: list[str] = []
    passkey: list[EvalResult] = []
    for row in rows:
        length = whole(row.length)
        if row.name == "passkey" and row.metric in ("accuracy", "k_max"):
            passkey.append(row)
        elif length is not None and row.name == "perplexity" and row.metric == "perplexity":
            earlier = entry.perplexity.get(length)
            if earlier is not None and earlier.value != row.value:
                clashes.append(f"at {length}: {row.value}, before {earlier.value}")
            entry.perplexity[length] = row
        elif length is not None:
            entry.other[(str(row.name), str(row.metric), length)] = row
    for grid in grids(passkey):
        earlier = entry.grids.get(grid.target)
        if earlier is not None and [cell.value for cell in earlier.cells] != [cell.value for cell in grid.cells]:
            clashes.append(f"passkey to {grid.target}")
        entry.grids[grid.target] = grid
    return clashes
