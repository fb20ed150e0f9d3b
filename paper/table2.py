"""Table 2 of the paper: perplexity on texts of another kind (proof-pile), each of them cut to the longest window.

The paper draws 128 documents at random of those with at least 32,768 tokens and cuts each there. Here the same is done at
the longest target. By default the texts are the topics of Python's own help system: English prose about a language of
which the pilot has read the code, and none of them was trained on. With --data, a data set.

    python paper/table2.py
    python paper/table2.py --model llama-7b --data proof-pile-test --tune-on pile --windows 8k,16k,32k --steps 1000 \\
        --documents 128 --every 200 --out tables

The arms are those of Table 1, tuned once. Because every document ends at the longest window, that column has one window a
document, most of whose tokens have a short context: part of the rise at 32,768 in the paper may be that.
"""

import importlib.util
import json
import re
from pathlib import Path

from options import run, study_of, table_options
from part import Part, write_part
from perplexity_tables import measured_rows, perplexity_part
from printed import TABLE_2
from study import Study

from ropewalk.errors import DataError
from ropewalk.record import write_text

DOCUMENTS = 12


def topics(folder: Path) -> Path:
    """The topics of Python's help system as one jsonl file. Raises DataError where this Python was built without them."""
    if importlib.util.find_spec("pydoc_data.topics") is None:
        raise DataError(
            "this Python has no pydoc_data.topics, which are the texts of Table 2 where none are given.\n"
            "  They come with CPython; some distributions ship the library in parts.\n"
            "  Give texts with --data."
        )
    from pydoc_data.topics import topics as found

    path = folder / "topics.jsonl"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        plain = {name: re.sub(r"\n{3,}", "\n\n", text) for name, text in sorted(found.items())}
        write_text(path, "".join(json.dumps({"name": name, "text": text}) + "\n" for name, text in plain.items()))
    return path


def table(study: Study, documents: int = DOCUMENTS) -> Part:
    builtin = study.data == ("pilot",)
    texts = [str(topics(study.work / "texts"))] if builtin else list(study.data)
    longest = max(study.targets)
    cut = {"data": texts, "document_count": documents, "min_tokens": longest, "truncate_tokens": longest}
    said = "topics of Python's help system" if builtin else ", ".join(study.data)
    lede = f"Texts: {documents} of the {said} with at least {longest} tokens, drawn at random, the first {longest} of each."
    title = "Table 2: perplexity on texts of another kind"
    return perplexity_part(study, "table2", title, lede, TABLE_2, measured_rows(study, "table2", **cut))


def main(arguments: list[str] | None = None) -> None:
    parser = table_options(__doc__)
    parser.set_defaults(documents=DOCUMENTS)
    given = parser.parse_args(arguments)
    study = study_of(given)
    write_part(table(study, study.documents), given.out)


if __name__ == "__main__":
    run(main)
