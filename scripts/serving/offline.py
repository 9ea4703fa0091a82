"""Greedy answers of vLLM without a server; runs in the environment that has vLLM.

    python offline.py MODEL REQUESTS.safetensors ANSWERS.json MAX_TOKENS

Each tensor of REQUESTS is one `prompt_embeds`, float32 `[length, hidden_size]`; ANSWERS gets its token ids by its name.
"""

import json
import sys
from pathlib import Path

from safetensors.torch import load_file


def main() -> None:
    from vllm import LLM, SamplingParams

    model, requests, answers, max_tokens = sys.argv[1:]
    tensors = load_file(requests)
    llm = LLM(model, enable_prompt_embeds=True, enforce_eager=True, dtype="float32", max_model_len=512)
    sampling = SamplingParams(temperature=0, max_tokens=int(max_tokens))
    outputs = llm.generate([{"prompt_embeds": tensor} for tensor in tensors.values()], sampling)
    found = {name: list(one.outputs[0].token_ids) for name, one in zip(tensors, outputs, strict=True)}
    Path(answers).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":  # vLLM starts its engine as a process that imports this file again
    main()
