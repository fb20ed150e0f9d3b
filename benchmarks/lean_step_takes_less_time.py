"""A tuning step takes less time than transformers' Trainer, with the same gradients.

One row of `--length` tokens through a random Llama of four layers and width 256, in float32; the same rows, weights and
optimizer. Ours is what `ropewalk tune` runs with memory to spare: nothing is computed twice. Of three
steps the first warms up, and the median of the others counts. TRL's SFTTrainer is shown beside, with checkpointing as it has by default
and without; no goal is set for it.
"""

import statistics
import sys
import warnings
from functools import partial

import torch
from paired import options, printed
from training import gradients, in_new_folder, model_of, ours, theirs, trl

STEPS = 3


def main() -> int:
    warnings.simplefilter("ignore")
    parser = options(__doc__ or "")
    parser.add_argument("--length", type=int, default=2048)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    met = True
    for vocabulary, name, without, with_it in ((32000, "32k", 1.4, 1.5), (4096, "4k", 1.05, 1.25)):
        model = model_of(vocabulary)
        loss, expected, worst = gradients(model, given.length, None)
        if abs(loss - expected) > 1e-5 * expected or worst > 1e-5:
            print(f"unequal at vocabulary {name}: loss {loss} and {expected}, gradients differ by {worst:.1e}")
            return 1
        print(f"vocabulary {name}: losses {loss:.6f} and {expected:.6f}, gradients within {worst:.1e}", flush=True)
        others = {
            "trainer": (partial(theirs, checkpointing=False), without),
            "trainer_with_checkpointing": (partial(theirs, checkpointing=True), with_it),
            "trl": (partial(trl, checkpointing=False), 0.0),
            "trl_with_checkpointing": (partial(trl, checkpointing=True), 0.0),
        }
        times: dict[str, list[float]] = {way: [] for way in ("ours", *others)}
        for _ in range(given.pairs):
            for way, (run, _) in ({"ours": (ours, 0.0)} | others).items():
                steps = in_new_folder(run, model, given.length, STEPS)
                times[way].append(statistics.median(steps[1:]))
        for way, (_, goal) in others.items():
            ratios = [a / b for a, b in zip(times[way], times["ours"], strict=True)]
            met &= printed(f"{way}_at_vocabulary_{name}", (ratios, times[way], times["ours"]), goal)
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
