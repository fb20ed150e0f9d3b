"""Items and pairs made from Python sources, for Tables 5 and 6 where no task files are given. Not the paper's tasks.

Cloze items take the forms of three of its tasks, so that lm_eval asks and judges them as it does there:

    winogrande   which of two names, both seen before, stands here; judged by what follows
    piqa         which of two lines comes next
    race         which of four lines comes next, after a short text (middle) or a longer one (high)

The wrong lines are of the same file and about as long. Pairs for summaries are long functions without their docstring, and
its first paragraph. All are drawn by a seed from held-out modules (pairs to tune on: from the pilot's corpus).
"""

import ast
import json
import random
import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ropewalk.model.load import TextCodec
from ropewalk.record import write_text

NAME = re.compile(r"\b[A-Za-z_]\w{3,}\b(?= \S.{8,})")
SHORTEST_LINE = 12  # characters: shorter lines are brackets and the like
MIDDLE, HIGH = 0.25, 0.6  # of the window: what stands before the line that is asked for
SUMMARY_WORDS = (6, 60)
TRIES = 100  # for each item, at most: a text may have none


def write_items(folder: Path, codec: TextCodec, texts: Sequence[str], window: int, count: int, seed: int) -> Path:
    """A folder of task files with `count` items each, as `ropewalk evaluate --task-files` reads them."""
    made = {
        "winogrande": name_items(codec, texts, round(HIGH * window), count, random.Random(f"{seed}/names")),
        "piqa": [_piqa(item) for item in line_items(codec, texts, round(HIGH * window), 2, count, random.Random(f"{seed}/2"))],
        "race-middle": [_race(i) for i in line_items(codec, texts, round(MIDDLE * window), 4, count, random.Random(f"{seed}/4"))],
        "race-high": [_race(i) for i in line_items(codec, texts, round(HIGH * window), 4, count, random.Random(f"{seed}/5"))],
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    for name, items in made.items():
        write_lines(folder / f"{name}.jsonl", items)
    return folder


def write_lines(path: Path, items: Iterable[dict[str, Any]]) -> None:
    write_text(path, "".join(json.dumps(item) + "\n" for item in items))


def name_items(
    codec: TextCodec, texts: Sequence[str], most: int, count: int, rng: random.Random
) -> list[dict[str, Any]]:
    """A name of which another stands before it too; `gold` says which of the two contexts has the right one."""
    items: list[dict[str, Any]] = []
    for text in _turns(texts, rng, TRIES * count):
        if len(items) == count:
            return items
        found = list(NAME.finditer(text))
        chosen = rng.choice(found)
        before = fitted(codec, text[: chosen.start()], most)
        seen = sorted({match[0] for match in NAME.finditer(before)} - {chosen[0]})
        if not seen or chosen[0] not in before:
            continue
        gold, wrong = rng.randrange(2), rng.choice(seen)
        options = [before + name for name in ((chosen[0], wrong) if gold == 0 else (wrong, chosen[0]))]
        line = text[chosen.end() :].split("\n", 1)[0].strip()
        items.append({"context_options": options, "continuation": line, "gold": gold})
    return items


def line_items(
    codec: TextCodec, texts: Sequence[str], most: int, options: int, count: int, rng: random.Random
) -> list[dict[str, Any]]:
    """A line, what stands before it, and other lines of the same text within a third of its length."""
    items: list[dict[str, Any]] = []
    for text in _turns(texts, rng, TRIES * count):
        if len(items) == count:
            return items
        lines = text.split("\n")
        number = rng.randrange(8, len(lines))
        right = lines[number].strip()
        alike = {line.strip() for line in lines if abs(len(line.strip()) - len(right)) <= len(right) / 3} - {right}
        if len(right) < SHORTEST_LINE or len(alike) < options - 1:
            continue
        choices = [right, *rng.sample(sorted(alike), options - 1)]
        rng.shuffle(choices)
        before = fitted(codec, "\n".join(lines[:number]), most)
        if before.strip():
            items.append({"before": before, "choices": choices, "gold": choices.index(right)})
    return items


def fitted(codec: TextCodec, text: str, most: int) -> str:
    """The last whole lines of `text` that have no more than `most` tokens together with what is left of its last line."""
    lines = text[-12 * most :].split("\n")
    while len(lines) > 1 and len(codec.encode("\n".join(lines))) > most:
        lines.pop(0)
    return "\n".join(lines)


def _turns(texts: Sequence[str], rng: random.Random, most: int) -> Iterator[str]:
    """Texts at random, long enough for any item; ends, so that texts without one do too."""
    usable = [text for text in texts if text.count("\n") > 20 and NAME.search(text)]
    return (rng.choice(usable) for _ in range(most if usable else 0))


def _piqa(item: dict[str, Any]) -> dict[str, Any]:
    return {"query": f"Question: {item['before']}", "choices": item["choices"], "gold": item["gold"]}


def _race(item: dict[str, Any]) -> dict[str, Any]:
    answer = "ABCD"[item["gold"]]
    return {"article": item["before"], "question": "The next line:", "options": item["choices"], "answer": answer}


def pairs(codec: TextCodec, texts: Iterable[str], shortest: int, longest: int) -> Iterator[dict[str, str]]:
    """Functions of `shortest` to `longest` tokens without their docstring, and its first paragraph."""
    for text in texts:
        try:
            tree = ast.parse(text)
        except (SyntaxError, ValueError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (said := ast.get_docstring(node)):
                summary = " ".join(said.split("\n\n")[0].split())
                report = _without_docstring(text, node)
                if SUMMARY_WORDS[0] <= len(summary.split()) <= SUMMARY_WORDS[1]:
                    if report and shortest <= len(codec.encode(report)) <= longest:
                        yield {"report": report, "summary": summary}


def _without_docstring(text: str, node: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    lines, said = text.split("\n"), node.body[0]
    if len(node.body) < 2 or said.end_lineno is None or node.end_lineno is None:
        return ""
    return textwrap.dedent(
        "\n".join([*lines[node.lineno - 1 : said.lineno - 1], *lines[said.end_lineno : node.end_lineno]])
    )
