"""In an environment with transformers: logits of the tokens in sys.argv[2], by the model in sys.argv[1]."""

import sys

import numpy as np
import torch
import transformers

tokens = torch.from_numpy(np.load(sys.argv[2]))[None]
model = transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32).eval()
with torch.inference_mode():
    np.save(sys.argv[3], model(tokens, use_cache=False).logits[0].numpy())
print(transformers.__version__)
