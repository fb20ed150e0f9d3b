"""Lengthen the context window of a RoPE checkpoint, tune it briefly, and prove that it worked.

The verbs of the command line as functions over paths, and the few types they speak in:

    inspect    what a checkpoint's window and rotation are, and what a method would make of them
    extend     a new folder with a longer window, in a second
    check      how each serving runtime will read it
    export     one file for another runtime
    plan       memory and time that tuning will need
    tune       fine-tune it, resumable
    evaluate   perplexity and passkey retrieval, with uncertainty
    search     one divisor a rotary pair for a target, without tuning
    report     one page from any number of runs
    run        all of it in one call
    bounds     the paper's theory in numbers, as printed and as it holds

Heavy packages are imported by the verb that needs them, not by `import ropewalk`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ropewalk.errors import RopewalkError
from ropewalk.record import EvalResult, Run, read_run
from ropewalk.rope.methods import METHODS
from ropewalk.rope.spec import RopeSpec, Window

if TYPE_CHECKING:
    from ropewalk.checking import check
    from ropewalk.evals.evaluate import evaluate
    from ropewalk.exporting.export import export
    from ropewalk.extension import extend
    from ropewalk.inspection import inspect
    from ropewalk.pipeline import run
    from ropewalk.planning.forecast import plan
    from ropewalk.reports.page import write_report as report
    from ropewalk.searching.search import search
    from ropewalk.theory.answer import bounds
    from ropewalk.train.tune import tune

__version__ = "0.1.0"

__all__ = [
    "METHODS",
    "EvalResult",
    "RopeSpec",
    "RopewalkError",
    "Run",
    "Window",
    "bounds",
    "check",
    "evaluate",
    "export",
    "extend",
    "inspect",
    "plan",
    "read_run",
    "report",
    "run",
    "search",
    "tune",
]

_VERBS = {
    "bounds": ("ropewalk.theory.answer", "bounds"),
    "check": ("ropewalk.checking", "check"),
    "export": ("ropewalk.exporting.export", "export"),
    "evaluate": ("ropewalk.evals.evaluate", "evaluate"),
    "extend": ("ropewalk.extension", "extend"),
    "inspect": ("ropewalk.inspection", "inspect"),
    "plan": ("ropewalk.planning.forecast", "plan"),
    "report": ("ropewalk.reports.page", "write_report"),
    "search": ("ropewalk.searching.search", "search"),
    "run": ("ropewalk.pipeline", "run"),
    "tune": ("ropewalk.train.tune", "tune"),
}


def __getattr__(name: str) -> Any:
    if name not in _VERBS:
        raise AttributeError(f"module 'ropewalk' has no attribute {name!r}")
    module, function = _VERBS[name]
    return getattr(import_module(module), function)
