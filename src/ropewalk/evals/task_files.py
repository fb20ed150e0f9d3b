"""Where the items of short tasks come from: lm_eval's own tasks, fed by the hub or by local files.

A local line becomes the document that lm_eval's task reads from the hub, and only the source of the documents is
exchanged: prompt, choices and metrics remain lm_eval's. What a line already says ("Question:", "Answer:") is taken off
and put back by lm_eval's template, once. The documents of local files are held in memory: no cache is written.

Differs from lm_eval: its `race` is the high school half alone, because its data set holds no other. `race-middle` is
the same task on ehovy/race, whose questions are put together by article as in lm_eval's data: one item an article, the
last question asked and those before it answered in the prompt.
"""

import importlib.util
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ropewalk.errors import DataError
from ropewalk.names import unknown
from ropewalk.record import sha256_file

TASKS = {"boolq": "boolq", "piqa": "piqa", "race-middle": "race", "race-high": "race", "winogrande": "winogrande"}
FOLDERS = {"boolq": "super_glue/boolq", "piqa": "piqa", "race": "race", "winogrande": "winogrande"}  # in lm_eval/tasks
GROUPS = {"race": ("race-middle", "race-high")}
LONG = ("ruler", "longbench")  # folders of lm_eval whose tasks can be chosen too
LONG_NAMES = ("ruler", "niah_", "longbench")  # how their names begin
MIDDLE = "ehovy/race"
SHORTEST_RULER = 1024  # tokens; below, RULER's own texts do not fit and some of its generators never end
LINES = {
    "boolq": '{"query": "Passage: ...\\nQuestion: ...?", "choices": ["no", "yes"], "gold": 0}',
    "piqa": '{"query": "Question: ...", "choices": ["...", "..."], "gold": 0}',
    "winogrande": '{"context_options": ["...", "..."], "continuation": "...", "gold": 0}',
    "race": '{"article": "...", "question": "...", "options": [four texts], "answer": "A"}, or with lists in '
    '"questions", "options", "answers"',
}
BOOLQ = re.compile(r"(?:Passage:\s*)?(?P<passage>.*)\nQuestion:\s*(?P<question>.*?)\??\s*(?:\nAnswer:\s*)?", re.DOTALL)
PIQA = re.compile(r"(?:Question:\s*)?(?P<goal>.*?)\s*(?:\nAnswer:\s*)?", re.DOTALL)


@dataclass(frozen=True)
class NamedTask:
    """One of lm_eval's tasks, under our name, and where its items come from."""

    name: str
    task: Any
    data: dict[str, Any]


def require_lm_eval() -> None:
    """Raises DataError when lm_eval is not installed."""
    if importlib.util.find_spec("lm_eval") is None:
        raise DataError(
            "short tasks need lm_eval, which is not installed.\n"
            "  It is an optional part of ropewalk, and brings the tasks' prompts and metrics.\n"
            "  Install it: pip install 'ropewalk[evals]'."
        )


def task_names(tasks: Sequence[str]) -> list[str]:
    """The tasks in order, once each, with `race` opened. Raises DataError for a name that is not known."""
    names = [part for task in tasks for part in GROUPS.get(task, (task,))]
    for name in names:
        if name not in TASKS and name not in (long := long_tasks()):
            raise DataError(unknown("short task", name, [*TASKS, *GROUPS, *long]))
    return list(dict.fromkeys(names))


def long_tasks() -> list[str]:
    """Names of lm_eval's RULER and LongBench tasks and groups."""
    require_lm_eval()
    return [name for name in _manager(LONG).all_tasks if name.startswith(LONG_NAMES)]


def task_files(names: Sequence[str], files: Path | None) -> dict[str, Path]:
    """The local file of each task that needs one. Raises DataError when one is not in the folder `files`."""
    paths = {} if files is None else {name: files / f"{name}.jsonl" for name in names if name in TASKS}
    for name, path in paths.items():
        if not path.is_file():
            raise DataError(
                f"no items for {name}: {path} is not there.\n"
                f"  The folder of task files holds {_there(path.parent)}; {name} is read from {path.name}.\n"
                f"  Put it there, one item a line: {LINES[TASKS[name]]}."
            )
    return paths


def govreport_file(files: Path | None) -> Path | None:
    """The local reports, None without a folder of task files. Raises DataError when they are not in it."""
    if files is None:
        return None
    path = files / "gov_report.jsonl"
    if not path.is_file():
        raise DataError(
            f"no reports for govreport: {path} is not there.\n"
            f"  The folder of task files holds {_there(files)}; govreport is read from {path.name}.\n"
            '  Put it there, one report a line: {"report": "...", "summary": "..."}; or leave --task-files out.'
        )
    return path


def _there(files: Path) -> str:
    return ", ".join(sorted(p.name for p in files.glob("*.jsonl"))) or "no .jsonl file"


def named_tasks(
    tasks: Sequence[str], *, files: Path | None, checkpoint: Path, window: int, seed: int
) -> list[NamedTask]:
    """lm_eval's tasks, built, in the order asked for.

    With `files`, a folder, the five short tasks are read from it and nothing is fetched; without, lm_eval fetches its
    own data through `datasets`. RULER makes its items from the tokenizer in `checkpoint`, as long as `window`.
    """
    require_lm_eval()
    names = task_names(tasks)
    paths = task_files(names, files)
    built: dict[str, NamedTask] = {}
    for name in names:
        if name in paths:
            data = {"file": str(paths[name]), "sha256": sha256_file(paths[name])}
            built[name] = NamedTask(name, _with_documents(TASKS[name], local_documents(name, paths[name])), data)
        elif name in TASKS:
            built[name] = _from_hub(name)
        else:
            built |= {one.name: one for one in _long_tasks(name, checkpoint, window, seed)}
    return list(built.values())


def local_documents(name: str, path: Path) -> list[dict[str, Any]]:
    """The file's items in the schema of lm_eval's task. Raises DataError with the number of a line that is no item."""
    kind = TASKS[name]
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}.\n  Expected UTF-8 text, one JSON object a line.") from None
    items: list[Any] = []
    for number, line in enumerate(text.split("\n"), 1):  # splitlines would also cut at signs that JSON text may hold
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            items += READERS[kind](row)
        except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
            problem = f"no {error}" if isinstance(error, KeyError) else str(error)
            raise DataError(
                f"{path}, line {number}, is no item of {name}: {problem}.\n"
                f"  Expected {LINES[kind]}.\n"
                "  Mend the line or take it out."
            ) from None
    if not items:
        raise DataError(f"{path} holds no item.\n  Expected one a line: {LINES[kind]}.\n  Give another file.")
    return by_article(items) if kind == "race" else items


def by_article(questions: Iterable[tuple[str, dict[str, Any]]]) -> list[dict[str, Any]]:
    """lm_eval's RACE documents: an article and all that is asked about it, in the order of first mention."""
    articles: dict[str, list[dict[str, Any]]] = {}
    for article, problem in questions:
        articles.setdefault(article, []).append(problem)
    return [{"article": article, "problems": repr(problems)} for article, problems in articles.items()]


def _boolq(row: dict[str, Any]) -> list[dict[str, Any]]:
    said = BOOLQ.fullmatch(_text(row["query"]))
    if said is None:
        raise ValueError("its query has no line that begins with 'Question:'")
    answer = _chosen(row, row["choices"]).strip().lower()
    if answer not in ("no", "yes"):
        raise ValueError(f"its answer {answer!r} is neither 'no' nor 'yes'")
    return [{"passage": said["passage"].strip(), "question": said["question"], "label": int(answer == "yes")}]


def _piqa(row: dict[str, Any]) -> list[dict[str, Any]]:
    said = PIQA.fullmatch(_text(row["query"]))
    _chosen(row, row["choices"], 2)
    first, second = (choice.removeprefix(" ") for choice in row["choices"])  # lm_eval puts a space itself
    return [{"goal": said["goal"] if said else row["query"], "sol1": first, "sol2": second, "label": row["gold"]}]


def _winogrande(row: dict[str, Any]) -> list[dict[str, Any]]:
    """A sentence that begins with the blank: whole contexts go into it, as lm_eval's partial evaluation scores them."""
    _chosen(row, row["context_options"], 2)
    first, second = row["context_options"]
    sentence = f"_ {_text(row['continuation']).strip()}"
    return [{"sentence": sentence, "option1": first, "option2": second, "answer": str(row["gold"] + 1)}]


def _race(row: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    if "questions" in row:
        asked = list(zip(row["questions"], row["options"], row["answers"], strict=True))
    else:
        asked = [(row["question"], row["options"], row["answer"])]
    problems = []
    for question, options, answer in asked:
        if answer not in ("A", "B", "C", "D"):
            raise ValueError(f"its answer {answer!r} is none of A, B, C, D")
        _chosen({"gold": "ABCD".index(answer)}, options, 4)
        problems.append((_text(row["article"]), {"question": _text(question), "options": options, "answer": answer}))
    return problems


READERS = {"boolq": _boolq, "piqa": _piqa, "winogrande": _winogrande, "race": _race}


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{value!r} is no text")
    value.encode()  # half a surrogate pair, which JSON can hold, has no tokens
    return value


def _chosen(row: dict[str, Any], choices: Any, wanted: int | None = None) -> str:
    """The right one of the choices, after all of them and the index were looked at."""
    if not isinstance(choices, list) or (wanted is not None and len(choices) != wanted):
        raise ValueError(f"{wanted or 'several'} choices are needed, and it has {choices!r}")
    gold = row["gold"]
    if not isinstance(gold, int) or isinstance(gold, bool) or not 0 <= gold < len(choices):
        raise ValueError(f"gold is {gold!r}, and must be from 0 to {len(choices) - 1}")
    return [_text(choice) for choice in choices][gold]


def _manager(folders: Iterable[str], **metadata: Any) -> Any:
    """lm_eval's index of some of its folders: of all of them it takes 20 s."""
    import lm_eval.tasks

    root = Path(lm_eval.tasks.__file__).parent
    return lm_eval.tasks.TaskManager(
        include_defaults=False, include_path=[root / folder for folder in folders], metadata=metadata or None
    )


def _with_documents(stock: str, documents: Sequence[dict[str, Any]]) -> Any:
    import datasets

    split = datasets.Dataset.from_list(list(documents))
    splits = {"validation": split, "test": split}
    changed = {"task": stock, "custom_dataset": lambda **_: splits, "training_split": None}
    group = {"group": "ropewalk", "task": [changed]}  # a member of a group is the stock task with some keys exchanged
    return _manager([FOLDERS[stock]]).load([group])["tasks"][stock]


def _from_hub(name: str) -> NamedTask:
    stock = TASKS[name]
    manager = _manager([FOLDERS[stock]])
    config = manager.task_index[stock].cfg
    source = (MIDDLE, "middle") if name == "race-middle" else (config["dataset_path"], config.get("dataset_name"))
    data = {"hub": source[0], "config": source[1]}
    try:
        if name != "race-middle":
            return NamedTask(name, manager.load([stock])["tasks"][stock], data)
        import datasets

        rows: Any = datasets.load_dataset(*source, split="test")
        return NamedTask(name, _with_documents("race", by_article(q for row in rows for q in _race(row))), data)
    except Exception as error:  # hub, network, cache and disk each raise their own
        raise DataError(
            f"the items of {name} cannot be had: {_first_line(error)}\n"
            f"  Without local files they come from {source[0]} on the hub, or from the cache of `datasets`.\n"
            f"  Give a folder that holds {name}.jsonl (--task-files), or fetch them once where there is a network."
        ) from error


def _long_tasks(name: str, checkpoint: Path, window: int, seed: int) -> list[NamedTask]:
    made = name.startswith(("ruler", "niah_"))
    if made:
        _require_tokenizer_without_code(name, checkpoint)
    if made and window < SHORTEST_RULER:
        raise DataError(
            f"{name} needs a window of {SHORTEST_RULER} tokens, and the model's is {window}.\n"
            "  Below, the task's own text leaves no room for anything to find.\n"
            "  Leave it out."
        )
    manager = _manager(LONG, tokenizer=str(checkpoint), max_seq_lengths=[window])
    try:
        tasks = manager.load([name])["tasks"]
    except Exception as error:  # optional packages, downloads of words and essays, the hub
        raise DataError(
            f"lm_eval cannot make {name}: {_first_line(error)}\n"
            "  Its long tasks need packages and data of their own.\n"
            "  Install them: pip install 'lm_eval[ruler,longbench]'; fetch the data once where there is a network."
        ) from error
    of_ruler = {"made_by": "lm_eval, from the model's tokenizer", "length": window, "seed": seed}
    return [
        NamedTask(task_name, task, of_ruler if made else {"hub": task.DATASET_PATH, "config": task.DATASET_NAME})
        for task_name, task in tasks.items()
    ]


def _require_tokenizer_without_code(name: str, checkpoint: Path) -> None:
    """RULER loads the tokenizer with trust_remote_code, which would run Python files of the model's folder."""
    for file in (checkpoint / "config.json", checkpoint / "tokenizer_config.json"):
        if file.is_file() and "auto_map" in json.loads(file.read_text(encoding="utf-8")):
            raise DataError(
                f"{name} would run code that comes with the model: {file} has the key auto_map.\n"
                "  lm_eval loads RULER's tokenizer with trust_remote_code.\n"
                "  Leave the task out, or take the key out of a copy of the model."
            )


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"
