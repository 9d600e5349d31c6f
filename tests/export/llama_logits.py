"""Run where llama-cpp-python is installed: next-token logits after each token, with and without a control vector.

    python llama_logits.py MODEL.gguf VECTORS.gguf TOKENS.json OUT.json

Through the C API that `--control-vector` of llama.cpp's tools goes through (`llama_set_adapter_cvec`).
"""

from __future__ import annotations

import ctypes
import json
import sys
from pathlib import Path

import llama_cpp
import numpy as np
from gguf import GGUFReader


def main() -> None:
    model_file, vectors, tokens_file, out = sys.argv[1:]
    tokens = json.loads(Path(tokens_file).read_text())
    llama_cpp.llama_backend_init()
    how = llama_cpp.llama_model_default_params()
    how.n_gpu_layers = 0
    model = llama_cpp.llama_model_load_from_file(model_file.encode(), how)
    found = {"plain": logits(model, tokens, None), "steered": logits(model, tokens, vectors)}
    Path(out).write_text(json.dumps({"version": llama_cpp.__version__, **found}))


def logits(model: object, tokens: list[int], vectors: str | None) -> list[list[float]]:
    """Logits after each token."""
    how = llama_cpp.llama_context_default_params()
    how.n_ctx, how.n_batch, how.n_ubatch, how.n_threads = 256, 256, 256, 1
    how.type_k = how.type_v = 0  # float32
    how.flash_attn_type = 0  # it rounds to 16 bits
    context = llama_cpp.llama_init_from_model(model, how)
    width = llama_cpp.llama_model_n_embd(model)
    if vectors is not None:
        steer(context, vectors, width, llama_cpp.llama_model_n_layer(model))
    batch = llama_cpp.llama_batch_init(len(tokens), 0, 1)
    batch.n_tokens = len(tokens)
    for k, token in enumerate(tokens):
        batch.token[k], batch.pos[k], batch.n_seq_id[k], batch.seq_id[k][0], batch.logits[k] = token, k, 1, 0, 1
    assert llama_cpp.llama_decode(context, batch) == 0
    size = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
    rows = [
        np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(context, k), shape=(size,)).tolist()
        for k in range(len(tokens))
    ]
    llama_cpp.llama_batch_free(batch)
    llama_cpp.llama_free(context)
    return rows


def steer(context: object, file: str, width: int, depth: int) -> None:
    """As common/common.cpp reads the file: `direction.N` at place N - 1, zeros elsewhere."""
    data = np.zeros((depth, width), dtype=np.float32)
    for tensor in GGUFReader(file).tensors:
        data[int(tensor.name.removeprefix("direction.")) - 1] = tensor.data
    flat = (ctypes.c_float * data.size)(*data.reshape(-1).tolist())
    assert llama_cpp.llama_set_adapter_cvec(context, flat, data.size, width, 1, depth) == 0


main()
