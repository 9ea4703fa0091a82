"""What tests compare the product's passes with: rows, prompts away from their seed, and the plain gradient."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tests.conftest import PLACEMENTS, ROWS, SEEDS

from embedgrad_cli.core.model.language_model import LanguageModel
from embedgrad_cli.core.passes.forward import Forward
from embedgrad_cli.core.passes.plain import plain_losses
from embedgrad_cli.core.prompt.soft_prompt import SoftPrompt
from embedgrad_cli.core.text.encoding import Encoded, encode
from embedgrad_cli.core.text.marked_tokens import Example
from embedgrad_cli.core.text.template import PromptTemplate

ARCHITECTURES = ["qwen2", "qwen3", "llama", "mistral", "gemma", "gemma2", "gpt2"]


def encoded_rows(model: LanguageModel, placement: str, times: int = 1) -> Encoded:
    """Args: times: so many rows of each, no two of them alike."""
    prompt_template = PromptTemplate(PLACEMENTS[placement], SEEDS, model.tokenizer, model.is_chat)
    more = [replace(row, query=f"{row.query} {number}") for number in range(1, times) for row in ROWS]
    return encode([*ROWS, *more], prompt_template, model, append_end_token=True)


def moved_prompt(encoded: Encoded, model: LanguageModel) -> SoftPrompt:
    prompt = SoftPrompt.from_seed(encoded.slots, model)
    with torch.no_grad():
        prompt.vectors.add_(0.1 * torch.randn(prompt.vectors.shape, generator=torch.Generator().manual_seed(1)))
    return prompt


def gradient_of(loss: torch.Tensor, prompt: SoftPrompt) -> torch.Tensor:
    (gradient,) = torch.autograd.grad(loss, prompt.vectors)
    return gradient


def gradient_by(forward: Forward, encoded: Encoded, prompt: SoftPrompt) -> torch.Tensor:
    prompt.vectors.grad = None
    forward.accumulate_gradient(encoded.examples, prompt)
    assert prompt.vectors.grad is not None
    return prompt.vectors.grad.clone()


def assert_parity(
    forward: Forward, examples: list[Example], prompt: SoftPrompt, plain: torch.Tensor, size: int | None = None
) -> None:
    """Loss and gradient of the batch are those of a plain loss with its graph. Args: size: of micro-batches."""
    expected = gradient_of(plain, prompt)
    prompt.vectors.grad = None
    loss = forward.accumulate_gradient(examples, prompt, size)
    assert loss.item() == pytest.approx(plain.item(), rel=1e-5)
    assert prompt.vectors.grad is not None
    assert (prompt.vectors.grad - expected).norm() <= 1e-5 * expected.norm()


def plain_gradient(model: LanguageModel, encoded: Encoded, prompt: SoftPrompt) -> torch.Tensor:
    return gradient_of(plain_losses(model, encoded.examples, prompt).mean(), prompt)
