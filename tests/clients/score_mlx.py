"""In an environment with mlx-lm: logits of the tokens in sys.argv[2], by the model in sys.argv[1]."""

import sys
from importlib.metadata import version
from pathlib import Path

import mlx.core as mx
import numpy as np
from mlx_lm.utils import load_model

model, _ = load_model(Path(sys.argv[1]))
np.save(sys.argv[3], np.array(model(mx.array(np.load(sys.argv[2]))[None])[0].astype(mx.float32)))
print(version("mlx-lm"))
