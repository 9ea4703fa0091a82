"""The gradient of one step: by the product, and by PEFT prompt tuning. Each `step()` returns it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from peft import PromptTuningConfig, TaskType, get_peft_model
from torch import Tensor

from embedgrad_cli.core.passes.forward import Forward
from embedgrad_cli.core.passes.plain import plain_losses
from embedgrad_cli.core.passes.query_cache import QueryCache
from embedgrad_cli.core.prompt.soft_prompt import SoftPrompt
from embedgrad_cli.core.text.marked_tokens import Example, Slots

from .models import language_model

Step = Callable[[], Tensor]
IGNORED = -100  # the label of a place without a loss


def make_prompt(vectors: Tensor, device: Any = "cpu") -> SoftPrompt:
    return SoftPrompt(Slots((tuple(range(len(vectors))),)), vectors).to(device)


def our_step(
    network: Any,
    examples: Sequence[Example],
    vectors: Tensor,
    micro_batch_size: int | None = None,
    queries: QueryCache | None = None,
) -> Step:
    """The product's gradient, `[num_tokens, hidden_size]`; with `queries`, calls after the first find them there."""
    prompt = make_prompt(vectors, network.device)
    forward = Forward(language_model(network), examples, queries=queries)

    def step() -> Tensor:
        prompt.vectors.grad = None
        forward.accumulate_gradient(examples, prompt, micro_batch_size)
        return torch.as_tensor(prompt.vectors.grad).clone()

    return step


def plain_gradient(network: Any, examples: Sequence[Example], vectors: Tensor) -> Tensor:
    """The reference for placements that PEFT does not have: whole sequences, no cache."""
    prompt = make_prompt(vectors, network.device)
    loss = plain_losses(language_model(network), examples, prompt).mean()
    return torch.autograd.grad(loss, prompt.vectors)[0]


def peft_model(network: Any, vectors: Tensor) -> Any:
    """PEFT prompt tuning around the network, with these vectors as its virtual tokens."""
    wrapped: Any = get_peft_model(
        network, PromptTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=len(vectors))
    )
    with torch.no_grad():
        wrapped.prompt_encoder["default"].embedding.weight.copy_(vectors)
    return wrapped


def peft_step(network: Any, examples: Sequence[Example], vectors: Tensor) -> Step:
    """PEFT's gradient of the same loss on the batch as it is padded everywhere: to the longest row, on the right."""
    wrapped = peft_model(network, vectors)
    weight = wrapped.prompt_encoder["default"].embedding.weight
    rows = [[*e.tokens[len(vectors) :], *e.target] for e in examples]
    width = max(map(len, rows))
    ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    labels = torch.full_like(ids, IGNORED)
    for i, (row, e) in enumerate(zip(rows, examples, strict=True)):
        labels[i, len(row) - len(e.target) : len(row)] = torch.tensor(e.target)
    batch = {"input_ids": ids, "attention_mask": mask, "labels": labels}
    batch = {name: tensor.to(network.device) for name, tensor in batch.items()}

    def step() -> Tensor:
        weight.grad = None
        wrapped(**batch).loss.backward()
        return weight.grad.clone()

    return step
