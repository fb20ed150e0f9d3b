"""Every error Ropewalk raises on purpose. This module imports nothing.

    RopewalkError (ValueError)
    ├── RopeError         a rotation that cannot be: method, factor, window
    ├── CheckpointError   a model folder that is missing, broken or not a RoPE model
    ├── DataError         texts, tokens, windows
    ├── OutputError       a folder or file that cannot be written
    ├── RecordError       a run.json that cannot be read
    └── RankError         a process of a run of several that is gone, or a layout that cannot be
        └── FailedElsewhere   what went wrong is another process's to say

A message has up to three parts, each with the value: what is wrong; what was expected and where that came from; what
to do. The command line prints it without a traceback and exits with code 2; any other exception is a bug.
"""


class RopewalkError(ValueError):
    """Base of all errors that are the user's to mend."""


class RopeError(RopewalkError):
    """A rotation that cannot be had: unknown method, window or factor out of range."""


class CheckpointError(RopewalkError):
    """A model folder that is missing, broken, or has no rotary positions."""


class DataError(RopewalkError):
    """Texts that are missing, empty, too short or unreadable."""


class OutputError(RopewalkError):
    """A folder or file that cannot be written: it exists, the disk is full, no permission."""


class RecordError(RopewalkError):
    """A run.json that is missing or is not one of ours."""


class RankError(RopewalkError):
    """A run of several processes that lost one, or that cannot be laid out over them."""


class FailedElsewhere(RankError):
    """Another process of the run failed, and tells why; this one only ends."""
