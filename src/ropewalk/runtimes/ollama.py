"""Ollama, state of 2026-08-21, with a GGUF made by llama.cpp's converter, which it runs with llama.cpp (b10488).

Not its own import of safetensors, which reads less. Its context is set by the memory of the GPU: 4096 tokens on the
smallest, up to 256k, so a window has to be asked for.
"""

from dataclasses import replace

from ropewalk.runtimes import llama_cpp
from ropewalk.runtimes.reading import Config, Refused, Served, unless

SMALLEST_CONTEXT = 4096


def reads(config: Config, window: int) -> Served | Refused:
    served = llama_cpp.reads(config, window)
    if isinstance(served, Refused):
        return served
    return replace(served, max_length=SMALLEST_CONTEXT, flag=unless(window == SMALLEST_CONTEXT, f"num_ctx {window}"))
