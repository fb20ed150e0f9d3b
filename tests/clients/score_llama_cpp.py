"""In an environment with llama-cpp-python: logits of the tokens in sys.argv[2], by the GGUF file in sys.argv[1]."""

import sys

import llama_cpp
import numpy as np

tokens = np.load(sys.argv[2]).tolist()
model = llama_cpp.Llama(sys.argv[1], n_ctx=0, logits_all=True, n_batch=512, verbose=False)  # 0: the file's own window
assert model.n_ctx() >= len(tokens), f"the file declares {model.n_ctx()} tokens"
model.eval(tokens)
np.save(sys.argv[3], np.array(model.scores[: len(tokens)]))
print(llama_cpp.__version__)
