"""What tells the weights of one checkpoint from those of another at the same path, without reading them all."""

import hashlib
from pathlib import Path
from typing import Any

from ropewalk.checkpoint.folder import Checkpoint

BLOCK, BLOCKS = 4096, 64  # bytes of a block, and how many are read of a file, evenly spread


def weights_of(checkpoint: Checkpoint) -> list[dict[str, Any]]:
    """Name, size and a digest of some blocks of each weight file, for records.

    The same wherever the files lie and whenever they were copied there. A change of a fifth of the weights, as LoRA on attention
    makes it, is missed with a chance of one in a million.
    """
    files = [(name, checkpoint.folder / name) for name in checkpoint.weight_files]
    return [{"name": name, "bytes": path.stat().st_size, "blocks_sha256": blocks_sha256(path)} for name, path in files]


def blocks_sha256(path: Path) -> str:
    """Hex digest of a small file's whole content; of a large one's, of blocks from its beginning to its end."""
    size, digest = path.stat().st_size, hashlib.sha256()
    with path.open("rb") as file:
        if size <= BLOCK * BLOCKS:
            return hashlib.file_digest(file, "sha256").hexdigest()
        for number in range(BLOCKS):
            file.seek((size - BLOCK) * number // (BLOCKS - 1))
            digest.update(file.read(BLOCK))
    return digest.hexdigest()
