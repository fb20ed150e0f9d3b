"""`ropewalk export`: a checkpoint in, the same model in one file of another runtime's format out."""

from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from ropewalk.checkpoint.folder import Checkpoint, open_checkpoint
from ropewalk.checkpoint.output import require_new, require_outside, whole_folder
from ropewalk.checkpoint.subject import subject_of
from ropewalk.errors import CheckpointError, RopeError
from ropewalk.exporting.llama_cpp import (
    DIVISORS,
    Family,
    Keys,
    Rotation,
    as_read,
    carried,
    family_of,
    gguf_package,
    hyperparameters,
    same_rotation,
)
from ropewalk.exporting.tensors import Placed, placed_tensors
from ropewalk.exporting.vocabulary import Vocabulary, read_vocabulary
from ropewalk.names import unknown
from ropewalk.progress import Progress, silent
from ropewalk.record import Run, input_file, package_versions

FORMATS = ("gguf",)
_FILE_TYPES = {"F32": "ALL_F32", "F16": "MOSTLY_F16", "BF16": "MOSTLY_BF16"}


@dataclass(frozen=True)
class Export:
    """What goes into the file, before anything is written."""

    checkpoint: Checkpoint
    family: Family
    rotation: Rotation
    vocabulary: Vocabulary
    tensors: list[Placed]
    sides: Keys
    dtype: str | None

    @property
    def file(self) -> str:
        return f"{Path(self.checkpoint.name).name}.gguf"

    @property
    def keys(self) -> Keys:
        """Everything under the architecture's prefix."""
        return self.sides | self.rotation.keys

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors)


def planned_export(model: str | Path, to: str = "gguf", dtype: str | None = None) -> Export:
    """The export of `model`. Raises RopewalkError when it cannot be, or would not compute the same."""
    if to not in FORMATS:
        raise CheckpointError(unknown("format", to, FORMATS))
    gguf_package()
    checkpoint = open_checkpoint(model)
    rope = checkpoint.rope  # a model that does not rotate is refused as such
    family = family_of(checkpoint)
    rotation = carried(rope, family)
    tensors = placed_tensors(checkpoint, family, dtype)
    sides = hyperparameters(checkpoint, {tensor.name: tensor.shape for tensor in tensors})
    vocabulary = read_vocabulary(checkpoint, int(sides["vocab_size"]))
    return Export(checkpoint, family, rotation, vocabulary, tensors, sides, dtype)


def export(
    model: str | Path,
    *,
    to: str = "gguf",
    out: str | Path,
    dtype: str | None = None,
    progress: Progress = silent,
) -> Run:
    """Writes `model` as one GGUF file for llama.cpp into the new folder `out`, named after the model; gives the record.

    `dtype` float32, float16 or bfloat16 stores the matrices so; None keeps each as it is. Vectors are float32 always.
    Tensors go through one at a time. The file is read back before the folder appears, whole or not at all: its keys,
    its shapes, and whether llama.cpp will rotate by it as the checkpoint's config says.
    Not done here: quantization; llama.cpp's llama-quantize does it on the file.

    >>> export("pilot", out=folder / "exported").resolved["file"]
    'pilot.gguf'
    """
    out = Path(out)
    require_new(out)
    plan = planned_export(model, to, dtype)
    require_outside(out, plan.checkpoint.folder)
    for doubt in plan.vocabulary.doubts:
        progress.warn(doubt)
    run = _record(plan, to)
    with whole_folder(out) as folder:
        _write(plan, folder / plan.file, progress)
        run.finish(folder)
    return run


def _write(plan: Export, path: Path, progress: Progress) -> None:
    writer = gguf_package().GGUFWriter(path, plan.family.architecture)
    try:
        _add_keys(writer, plan)
        _write_tensors(writer, plan, path, progress)
    finally:
        writer.close()
    _check(path, plan, {key: value.value for key, value in writer.kv_data[0].items()})


def _add_keys(writer: Any, plan: Export) -> None:
    stored = {tensor.dtype for tensor in plan.tensors if len(tensor.shape) > 1}
    widest = next(dtype for dtype in _FILE_TYPES if dtype in stored)
    writer.add_type("model")
    writer.add_name(plan.checkpoint.name)
    writer.add_file_type(int(gguf_package().LlamaFileType[_FILE_TYPES[widest]]))
    add = {int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}
    for key, value in plan.keys.items():
        add[type(value)](f"{plan.family.architecture}.{key}", value)
    plan.vocabulary.write(writer)


def _write_tensors(writer: Any, plan: Export, path: Path, progress: Progress) -> None:
    kinds = gguf_package().GGMLQuantizationType
    divisors_F = plan.rotation.divisors_F
    for tensor in plan.tensors:
        writer.add_tensor_info(tensor.name, tensor.shape, np.dtype("f4"), tensor.nbytes, kinds[tensor.dtype])
    if divisors_F is not None:
        writer.add_tensor_info(DIVISORS, divisors_F.shape, divisors_F.dtype, divisors_F.nbytes)
    writer.write_header_to_file(path)
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    with progress.bar("exporting", total=len(plan.tensors)) as bar:
        for tensor in plan.tensors:
            writer.write_tensor_data(tensor.numbers())
            bar.advance()
    if divisors_F is not None:
        writer.write_tensor_data(divisors_F)


def _check(path: Path, plan: Export, written: dict[str, Any]) -> None:
    """Reads the file back. A difference in keys or shapes is a bug of ours; one in the rotation is refused."""
    reader = gguf_package().GGUFReader(path)
    read = {key: field.contents() for key, field in reader.fields.items() if not key.startswith("GGUF.")}
    for key, value in written.items():
        same = np.isclose(read[key], value, rtol=1e-6, atol=0) if isinstance(value, float) else read[key] == value
        assert same, f"{key} was written as {value!r} and read back as {read[key]!r}"
    shapes = {tensor.name: tuple(int(side) for side in reversed(tensor.shape)) for tensor in reader.tensors}
    divisors_F = next((tensor.data for tensor in reader.tensors if tensor.name == DIVISORS), None)
    wanted = {tensor.name: tensor.shape for tensor in plan.tensors}
    wanted |= {} if divisors_F is None else {DIVISORS: divisors_F.shape}
    assert shapes == wanted, f"tensors were read back as {shapes}"
    prefix = f"{plan.family.architecture}."
    keys = {key.removeprefix(prefix): value for key, value in read.items() if key.startswith(prefix)}
    rope = plan.checkpoint.rope
    if not same_rotation(as_read(keys, divisors_F), rope.frequencies()):
        raise RopeError(
            f"the file would not rotate as the checkpoint does: {rope.in_words()}.\n"
            "  What llama.cpp reads from its keys was compared with config.json.\n"
            "  Extend the base checkpoint with --method pi, ntk or yarn instead."
        )


def _record(plan: Export, to: str) -> Run:
    checkpoint = plan.checkpoint
    names = ("config.json", *checkpoint.tokenizer_files)
    return Run(
        command="export",
        given={"model": str(checkpoint.folder), "to": to, "dtype": plan.dtype},
        resolved={
            "subject": subject_of(checkpoint),
            "file": plan.file,
            "bytes_of_tensors": plan.nbytes,
            "architecture": plan.family.architecture,
            "keys": plan.keys,
            "divisors": None if plan.rotation.divisors_F is None else plan.rotation.divisors_F.tolist(),
            "dtypes": sorted({tensor.dtype for tensor in plan.tensors}),
            "tokenizer": {"model": plan.vocabulary.model, "pre": plan.vocabulary.pre_tokenizer},
            "doubts": list(plan.vocabulary.doubts),
        },
        ropes={"exported": {"full_attention": checkpoint.rope.for_record()}},
        seed=None,
        inputs=[input_file(checkpoint.folder / name) for name in names],
        packages=package_versions() | {"gguf": metadata.version("gguf")},
    )
