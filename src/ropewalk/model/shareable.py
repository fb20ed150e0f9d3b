"""Whether ranks can share the sequences of a checkpoint, from its config.json: before anything is loaded or written."""

from transformers import AutoConfig, PretrainedConfig

from ropewalk.checkpoint.folder import Checkpoint
from ropewalk.errors import RankError
from ropewalk.model.load import quiet_libraries, unloadable
from ropewalk.model.ulysses import require_heads
from ropewalk.model.view import VIEWS, without_view


def can_share(checkpoint: Checkpoint) -> bool:
    """Whether any number of ranks may share its sequences. Raises CheckpointError where transformers reads no config."""
    return without_view(_config(checkpoint)) is None


def require_can_share(checkpoint: Checkpoint, sequence: int) -> None:
    """Raises RankError where `sequence` ranks cannot share its sequences: by its family, its layers or its heads."""
    if sequence == 1:
        return
    config = _config(checkpoint)
    if why := without_view(config):
        raise unshareable(sequence, why)
    require_heads(config.get_text_config().num_attention_heads, sequence)


def unshareable(sequence: int, why: str) -> RankError:
    return RankError(
        f"--sequence-parallel {sequence} cannot be had for this model: {why}.\n"
        f"  Ranks share a sequence through the lean engine, which knows {', '.join(VIEWS)} with full attention.\n"
        "  Give --sequence-parallel 1: each rank then has whole sequences."
    )


def _config(checkpoint: Checkpoint) -> PretrainedConfig:
    """With all that config.json leaves to the family, such as the sliding window of Mistral."""
    with quiet_libraries():
        try:
            return AutoConfig.from_pretrained(checkpoint.folder, trust_remote_code=False, local_files_only=True)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise unloadable(checkpoint, error) from error
