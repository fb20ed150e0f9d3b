"""`ropewalk plan` says within 15 % what memory a training step will take, before anything is run.

Eight configurations of a Llama of four layers, each trained for two steps in a process of its own by what `ropewalk tune`
runs. Measured is the peak of resident memory above what the process has after importing the libraries and after one step
of a toy model, which makes them load what they load late; predicted are weights, gradients, moments and activations.
Freed memory goes back to the system at once (MALLOC_MMAP_THRESHOLD_): what is measured is what is held. With --holes
malloc keeps it, as it does by default, and its holes are measured too.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

LOW, HIGH = 0.85, 1.15
STEPS = 2
KEEPS = {"none": "everything", "lean": "attention", "lean-thin": "input"}  # the trainer's words for the policies
AT_ONCE = {"MALLOC_MMAP_THRESHOLD_": "65536"}


@dataclass(frozen=True)
class Case:
    vocabulary: int
    length: int
    policy: str
    adapter: str
    sequences: int = 1

    @property
    def name(self) -> str:
        size = f"{self.vocabulary // 1000}k_words_{self.sequences}x{self.length // 1024}k"
        return f"{self.policy.replace('-', '_')}_{self.adapter.replace('+', '_plus')}_{size}"


CASES = (
    Case(4096, 1024, "none", "full", sequences=2),
    Case(4096, 8192, "none", "full"),
    Case(32000, 4096, "none", "lora"),
    Case(4096, 8192, "lean", "full"),
    Case(32000, 2048, "lean", "full", sequences=2),
    Case(32000, 8192, "lean", "lora+"),
    Case(4096, 4096, "lean", "lora", sequences=2),
    Case(32000, 8192, "lean-thin", "full"),
)


def trainer(case: Case, model: Any, folder: Path) -> Any:
    """What `ropewalk tune` runs, for this case."""
    import torch

    from ropewalk.train.loop import Trainer
    from ropewalk.train.recipe import resolved_recipe
    from ropewalk.train.rows import TokenRows

    batch = case.length * case.sequences
    recipe = resolved_recipe("paper", parameters=10**6, length=case.length, steps=STEPS, batch_tokens=batch)
    tokens = np.random.default_rng(0).integers(0, case.vocabulary, 2 * batch, dtype=np.int32)
    rows = TokenRows(tokens, case.length, 0)
    keeps = [KEEPS[case.policy]] * model.config.num_hidden_layers
    return Trainer(model, recipe, rows, folder, torch.float32, adapter=case.adapter, keeps=keeps)


def trained(case: Case, width: int) -> dict[str, Any]:
    """Trains for two steps without saving; the model's config."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from ropewalk.model.adapters import attached, chosen_adapter
    from ropewalk.progress import silent
    from ropewalk.train.loop import Saving

    config = LlamaConfig(
        vocab_size=case.vocabulary, hidden_size=width, intermediate_size=width * 43 // 16, num_hidden_layers=4,
        num_attention_heads=4, num_key_value_heads=2, head_dim=width // 4, max_position_embeddings=8192,
        tie_word_embeddings=False,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    attached(model, chosen_adapter(case.adapter), 0)
    with tempfile.TemporaryDirectory() as folder:
        trainer(case, model, Path(folder)).run(Saving(every=STEPS + 1, keep=0), silent)
    return config.to_dict()


def status(key: str) -> int:
    """Bytes by the system's account of this process."""
    found = re.search(rf"{key}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return 1024 * int(found[1])


def measure(case: Case) -> None:
    """Prints the measured and the predicted bytes of one case, in a process of its own."""
    import torch

    from ropewalk.planning.memory import Load, memory_of
    from ropewalk.planning.shapes import shape_of

    torch.set_num_threads(1)
    trained(Case(64, 128, case.policy, case.adapter), width=32)
    before = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    config = trained(case, width=256)
    measured = status("VmHWM") - before
    load = Load(tokens=case.length * case.sequences, on_gpu=False)
    predicted = memory_of(shape_of(config), load, case.policy, "float32", case.adapter)
    print(measured, predicted.total)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", type=int, help="measure this one here; otherwise each in a process of its own")
    parser.add_argument("--holes", action="store_true", help="leave malloc as it is")
    given = parser.parse_args()
    if given.case is not None:
        measure(CASES[given.case])
        return 0
    met = True
    for number, case in enumerate(CASES):
        command = [sys.executable, __file__, "--case", str(number)]
        environment = os.environ | ({} if given.holes else AT_ONCE)
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            print(f"{case.name} failed:\n{done.stderr}", flush=True)
            return 1
        measured, predicted = map(int, done.stdout.split())
        ratio = measured / predicted
        print(f"ratio {case.name} {ratio:.2f} goal {LOW}..{HIGH}", flush=True)
        print(f"  measured {measured / 2**20:.0f} MiB, predicted {predicted / 2**20:.0f} MiB", flush=True)
        met &= LOW <= ratio <= HIGH
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
