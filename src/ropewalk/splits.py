"""Texts split for a run: the last tenth is held out for evaluation, and never trained on."""

import json
from collections.abc import Sequence
from pathlib import Path

from ropewalk.checkpoint.output import whole_folder
from ropewalk.errors import DataError
from ropewalk.model.load import TextCodec
from ropewalk.text.documents import Document, documents
from ropewalk.text.sources import HUB

HELD_OUT = 10  # one in ten documents, or tokens, is for evaluation


def require_splittable(data: Sequence[str]) -> None:
    """Raises DataError for a data set of the hub."""
    if streamed := [one for one in data if one.startswith(HUB)]:
        raise DataError(
            f"{streamed[0]} cannot be split.\n"
            "  The last tenth of the texts is held out, so all of them are read; a data set of the hub may have no end.\n"
            "  Give files or folders (parquet ones too), or tune and evaluate a step at a time."
        )


def split_texts(
    codec: TextCodec, files: Sequence[Path], longest: int, names: str
) -> tuple[list[Document], list[Document]]:
    """Documents to train on, and the last tenth to evaluate on; of one document, the last tenth of its tokens.

    A text that is there twice counts once: the second could be among those to evaluate on. All texts are read; `names`
    are what messages call them. Raises DataError when the part to train on is shorter than the longest target.
    """
    kept: dict[str, Document] = {}
    for document in documents(files):
        kept.setdefault(document.sha256, document)
    texts = list(kept.values())
    if not texts:
        raise DataError(f"no text in {names}: every document is empty.\n  Give texts with --data.")
    if len(texts) == 1:
        text = texts[0].text
        cut = len(text) - len(text) // HELD_OUT
        cut = text.find("\n", cut) + 1 or cut
        parts = [Document(texts[0].name, text[:cut])], [Document(texts[0].name, text[cut:])]
    else:
        cut = len(texts) - max(1, len(texts) // HELD_OUT)
        parts = texts[:cut], texts[cut:]
    size = 0
    for document in parts[0]:
        size += len(codec.document(document.text))
        if size >= longest:
            return parts
    raise DataError(
        f"the text in {names} is too short: {size} tokens are left to train on, and one sequence has {longest}.\n"
        "  The last tenth is held out for evaluation.\n"
        "  Give more text with --data, or a shorter --to."
    )


def written_split(folder: Path, split: tuple[list[Document], list[Document]]) -> tuple[Path, Path]:
    """The two parts as files, written once, whole or not at all."""
    names = ("train.jsonl", "evaluation.jsonl")
    if not folder.is_dir():
        with whole_folder(folder) as beside:
            for name, part in zip(names, split, strict=True):
                with (beside / name).open("w", encoding="utf-8") as file:
                    file.writelines(json.dumps({"text": d.text, "name": d.name}) + "\n" for d in part)
    return folder / names[0], folder / names[1]
