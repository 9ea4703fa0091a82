"""The passes with CUDA's attention kernels, run on a CPU by their rules: the plain loss, gradient and answers.

In float32 that is memory-efficient attention; in half precision flash attention, where rows have nothing before them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from tests.conftest import PLACEMENTS, make_model
from tests.core.kernels.cuda_rules import cuda_rules
from tests.core.passes.parity import ARCHITECTURES, assert_parity, encoded_rows, moved_prompt
from tests.core.passes.test_trunk_check import errors_beside_plain, reason

from embedgrad_cli.core.kernels import attention_kernels
from embedgrad_cli.core.kernels.attention_kernels import FLASH, KERNELS, FlashKernel
from embedgrad_cli.core.model.language_model import LanguageModel
from embedgrad_cli.core.passes.forward import Forward
from embedgrad_cli.core.passes.plain import plain_losses
from embedgrad_cli.core.passes.query_cache import QueryCache

IN_PLACE = {"qwen2", "qwen3", "llama", "gemma", "gpt2"}  # the others have windows, or cap their scores


@pytest.fixture(autouse=True)
def by_cuda_kernel(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(KERNELS, "cpu", KERNELS["cuda"])
    monkeypatch.setitem(FLASH, "cpu", FLASH["cuda"])
    monkeypatch.setattr(attention_kernels, "_attend_on_cpu_backward", None)  # or this says nothing
    with cuda_rules():
        yield


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("size", [None, 2])
def test_loss_and_gradient_are_the_plain_ones(architecture: str, placement: str, size: int | None) -> None:
    model = make_model(architecture)
    assert model.reads_trunk_in_place is (architecture in IN_PLACE)
    encoded = encoded_rows(model, placement)
    prompt = moved_prompt(encoded, model)
    plain = plain_losses(model, encoded.examples, prompt).mean()
    assert_parity(Forward(model, encoded.examples), encoded.examples, prompt, plain, size)


@pytest.mark.parametrize("placement", ["after-query", "both-sides"])
def test_so_they_are_with_kept_queries_and_checkpointed_activations(placement: str) -> None:
    model = make_model("qwen2")
    encoded = encoded_rows(model, placement)
    prompt = moved_prompt(encoded, model)
    plain = plain_losses(model, encoded.examples, prompt).mean()
    forward = Forward(model, encoded.examples, queries=QueryCache(10**8), checkpoint_activations=True)
    for size in (None, 2):
        assert_parity(forward, encoded.examples, prompt, plain, size)
        plain = plain_losses(model, encoded.examples, prompt).mean()


@pytest.mark.parametrize("architecture", ["qwen2", "gemma", "gpt2"])
def test_the_start_check_passes(architecture: str) -> None:
    """Likelihoods, gradients, and the logits of answers."""
    model = make_model(architecture)
    assert reason(model) is None
    assert model.reads_trunk_in_place


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_as_exact_as_the_plain_forward(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    """The kernels round both parts to half precision, and their sum once more."""
    names, used, attend_rows = ("qwen2", "llama", "gpt2"), list[str](), FlashKernel.attend_rows
    monkeypatch.setattr(FlashKernel, "attend_rows", lambda *given: (used.append("flash"), attend_rows(*given))[1])
    ratios = [ratio for name in names for ratio in errors_beside_plain(name, dtype, "system")]
    assert used
    assert sum(ratios) / len(ratios) <= 1, ratios
    assert max(ratios) <= 1.3, ratios


def test_what_only_the_start_check_finds_leads_back_to_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel whose gradients are wrong, if nobody had looked at it alone."""
    model = make_model("qwen2")
    kernel = type(KERNELS["cuda"])
    usual = kernel.gradients
    monkeypatch.setattr(kernel, "gradients", lambda *given: tuple(2 * one for one in usual(*given)))
    assert model.reads_trunk_in_place
    assert reason(model) is None, "copies do"
    assert not model.reads_trunk_in_place
    encoded = encoded_rows(model, "system")
    prompt = moved_prompt(encoded, model)
    plain = plain_losses(model, encoded.examples, prompt).mean()
    assert_parity(Forward(model, encoded.examples), encoded.examples, prompt, plain)


def test_both_forms_give_one_gradient() -> None:
    model = make_model("llama")
    encoded = encoded_rows(model, "both-sides")
    copies: LanguageModel = replace(model, reads_trunk_in_place=False)
    gradients = []
    for each in (model, copies):
        prompt = moved_prompt(encoded, model)
        Forward(each, encoded.examples).accumulate_gradient(encoded.examples, prompt)
        assert prompt.vectors.grad is not None
        gradients.append(prompt.vectors.grad)
    assert (gradients[0] - gradients[1]).norm() <= 1e-5 * gradients[1].norm()
