"""Time of one optimiser step against PEFT prompt tuning: same model, same batches, same process.

    python scripts/bench_step.py [--json FILE] [--repeats 5]

The model is Qwen2-shaped (16 M parameters: hidden 256, 8 layers, vocabulary 32,000) with random weights, float32. Each
row of the table is one shape: tokens of the prompt, mean tokens of the query, tokens of the target, examples per
batch. Queries are ragged (half to one and a half times the mean). PEFT gets the same prompt (its prompt embedding is
set to ours), the same right-padded batch, and labels on the target alone. Repeats alternate between the two, each
figure is a median, and `ratio` is PEFT's time over ours. `grad_error` is the relative difference of the two gradients.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from peft import PromptTuningConfig, TaskType, get_peft_model
from rich.console import Console
from rich.table import Table
from transformers import Qwen2Config, Qwen2ForCausalLM

from embedgrad_cli.core.encoding import Example, Slots
from embedgrad_cli.core.forward import Forward
from embedgrad_cli.core.model import LanguageModel
from embedgrad_cli.core.soft_prompt import SoftPrompt

SHAPES = [(20, 25, 1, 32), (100, 25, 1, 32), (400, 60, 1, 16), (30, 60, 120, 8)]
VOCABULARY = 32_000


def make_network() -> Qwen2ForCausalLM:
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=1024,
        num_hidden_layers=8,
        num_attention_heads=8,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    )
    return Qwen2ForCausalLM(config).requires_grad_(False).eval()


def make_batch(prompt: int, query: int, target: int, batch: int) -> list[Example]:
    """A prompt in front of ragged queries, as PEFT can only place it there."""
    generator = torch.Generator().manual_seed(prompt + query + target)

    def draw(n: int) -> list[int]:
        return torch.randint(10, VOCABULARY, (n,), generator=generator).tolist()

    lengths = torch.randint(query // 2, query + query // 2 + 1, (batch,), generator=generator).tolist()
    slot = [-1 - i for i in range(prompt)]
    return [Example(str(i), (*slot, *draw(n)), tuple(draw(target))) for i, n in enumerate(lengths)]


def peft_step(
    network: Any, examples: list[Example], num_tokens: int, vectors: torch.Tensor
) -> Callable[[], torch.Tensor]:
    """A function that computes PEFT's gradient of the same loss, `[num_tokens, hidden_size]`."""
    config = PromptTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=num_tokens)
    wrapped: Any = get_peft_model(network, config)
    weight = wrapped.prompt_encoder["default"].embedding.weight
    with torch.no_grad():
        weight.copy_(vectors)
    rows = [[*e.tokens[num_tokens:], *e.target] for e in examples]
    width = max(map(len, rows))
    ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    labels = torch.full_like(ids, -100)
    for i, (row, e) in enumerate(zip(rows, examples, strict=True)):
        labels[i, len(row) - len(e.target) : len(row)] = torch.tensor(e.target)

    def step() -> torch.Tensor:
        weight.grad = None
        wrapped(input_ids=ids, attention_mask=mask, labels=labels).loss.backward()
        return weight.grad.clone()

    return step


def our_step(
    network: Any, examples: list[Example], num_tokens: int, vectors: torch.Tensor
) -> Callable[[], torch.Tensor]:
    model = LanguageModel(network, None, "bench", None, False)
    prompt = SoftPrompt(Slots((tuple(range(num_tokens)),)), vectors)
    forward = Forward(model, examples)

    def step() -> torch.Tensor:
        prompt.vectors.grad = None
        forward.accumulate_gradient(examples, prompt)
        return torch.as_tensor(prompt.vectors.grad).clone()

    return step


def timed(step: Callable[[], torch.Tensor]) -> float:
    started = time.perf_counter()
    step()
    return time.perf_counter() - started


def bench(shape: tuple[int, int, int, int], repeats: int) -> dict[str, Any]:
    prompt, query, target, batch = shape
    examples = make_batch(*shape)
    vectors = torch.randn(prompt, 256, generator=torch.Generator().manual_seed(1)) * 0.02
    ours = our_step(make_network(), examples, prompt, vectors)
    peft = peft_step(make_network(), examples, prompt, vectors)
    expected, actual = peft(), ours()
    error = ((actual - expected).norm() / expected.norm()).item()
    pairs = [(timed(ours), timed(peft)) for _ in range(repeats)]
    seconds, peft_seconds = (statistics.median(column) for column in zip(*pairs, strict=True))
    return {
        "prompt": prompt,
        "query": query,
        "target": target,
        "batch": batch,
        "ratio": round(peft_seconds / seconds, 2),
        "grad_error": error,
        "seconds": round(seconds, 4),
        "peft_seconds": round(peft_seconds, 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Time of one step against PEFT prompt tuning.")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    parser.add_argument("--repeats", type=int, default=5, help="timed pairs per shape (default 5)")
    arguments = parser.parse_args()
    rows = [bench(shape, arguments.repeats) for shape in SHAPES]
    table = Table(title=f"one step, {torch.get_num_threads()} threads, torch {torch.__version__}")
    for name in rows[0]:
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(*(f"{v:.1e}" if name == "grad_error" else str(v) for name, v in row.items()))
    Console().print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
