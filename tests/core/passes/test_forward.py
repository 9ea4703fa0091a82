"""Promises 1 to 3: step 0 is the text prompt, the trunk changes nothing, the weights stay as they are."""

from __future__ import annotations

import hashlib

import pytest
import torch
from tests.conftest import PLACEMENTS, ROWS, SEEDS, make_model

from embedgrad_cli.core.model.language_model import LanguageModel
from embedgrad_cli.core.passes.forward import Forward, can_share_trunk
from embedgrad_cli.core.prompt.soft_prompt import SoftPrompt
from embedgrad_cli.core.text.encoding import Encoded, encode
from embedgrad_cli.core.text.template import Conversation

ARCHITECTURES = ["qwen2", "qwen3", "llama", "mistral", "gemma", "gemma2", "gpt2"]


def encoded_rows(model: LanguageModel, placement: str) -> Encoded:
    conversation = Conversation(PLACEMENTS[placement], SEEDS, model.tokenizer, model.is_chat)
    return encode(ROWS, conversation, model, ends_turn=True)


def reference_ids(model: LanguageModel, placement: str, query: str) -> list[int]:
    """Token ids as a user's text prompt would give them, without any of the product's code."""
    fields = [("{prompt.0}", SEEDS[0]), ("{prompt.1}", SEEDS[1]), ("{prompt}", SEEDS[0]), ("{query}", query)]

    def fill(text: str) -> str:
        for field, value in fields:
            text = text.replace(field, value)
        return text

    template = PLACEMENTS[placement]
    if not model.is_chat:
        return model.tokenizer(fill(template.text))["input_ids"]
    messages = [{"role": m.role, "content": fill(m.content)} for m in template.messages]
    return model.tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)


def gradient_of(loss: torch.Tensor, prompt: SoftPrompt) -> torch.Tensor:
    (gradient,) = torch.autograd.grad(loss, prompt.vectors)
    return gradient


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("chat", [True, False], ids=["chat", "plain"])
def test_step_0_is_the_text_prompt(architecture: str, placement: str, chat: bool) -> None:
    model = make_model(architecture, chat)
    encoded = encoded_rows(model, placement)
    prompt = SoftPrompt.from_seed(encoded.slots, model)
    forward = Forward(model, encoded.examples)
    trunk = forward.compute_trunk(prompt)
    for row, example in zip(ROWS, encoded.examples, strict=True):
        ids = reference_ids(model, placement, row.query)
        assert len(ids) == len(example.tokens)
        expected = model.network(torch.tensor([ids])).logits[0, -1]
        branch = example.tokens[len(forward.trunk) :]
        logits, _ = forward.run([branch], trunk, prompt, [len(branch) - 1])
        torch.testing.assert_close(logits[0], expected, rtol=1e-4, atol=1e-5)
        # Where nothing is shared the very same numbers go in: equal to the last bit.
        embeds = forward.embed(*forward.pad([example.tokens])[:1], prompt)
        assert torch.equal(embeds, model.embed(torch.tensor([ids])))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("micro_batch_size", [None, 2])
def test_trunk_gives_the_plain_loss_and_gradient(
    architecture: str, placement: str, micro_batch_size: int | None
) -> None:
    model = make_model(architecture)
    encoded = encoded_rows(model, placement)
    prompt = SoftPrompt.from_seed(encoded.slots, model)
    with torch.no_grad():
        prompt.vectors.add_(0.1 * torch.randn(prompt.vectors.shape, generator=torch.Generator().manual_seed(1)))
    forward = Forward(model, encoded.examples)
    assert len(forward.trunk) > 2
    plain = forward.plain_losses(encoded.examples, prompt).mean()
    expected = gradient_of(plain, prompt)
    loss = forward.accumulate_gradient(encoded.examples, prompt, micro_batch_size)
    assert loss.item() == pytest.approx(plain.item(), rel=1e-5)
    assert prompt.vectors.grad is not None
    assert (prompt.vectors.grad - expected).norm() <= 1e-5 * expected.norm()


def test_the_gradient_is_the_same_to_the_last_bit_every_time() -> None:
    """On as many tokens as make PyTorch divide the work among threads."""
    model = make_model()
    encoded = encoded_rows(model, "both-sides")
    prompt, forward = SoftPrompt.from_seed(encoded.slots, model), Forward(model, encoded.examples)
    generator = torch.Generator().manual_seed(0)
    tokens = -1 - torch.randint(encoded.slots.num_tokens, (64, 100), generator=generator)
    weights = torch.randn(*tokens.shape, model.hidden_size, generator=generator)
    gradients = [gradient_of((forward.embed(tokens, prompt) * weights).sum(), prompt) for _ in range(50)]
    assert all(torch.equal(gradient, gradients[0]) for gradient in gradients)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_nothing_but_the_prompt_is_trained(architecture: str) -> None:
    model = make_model(architecture)

    def weights_hash() -> str:
        tensors = model.network.state_dict().values()
        return hashlib.sha256(b"".join(t.numpy().tobytes() for t in tensors)).hexdigest()

    before = weights_hash()
    encoded = encoded_rows(model, "system")
    prompt = SoftPrompt.from_seed(encoded.slots, model)
    optimizer = torch.optim.AdamW(prompt.parameters(), lr=0.1)
    Forward(model, encoded.examples).accumulate_gradient(encoded.examples, prompt)
    optimizer.step()
    assert not torch.equal(prompt.vectors, prompt.seed)
    assert weights_hash() == before
    assert all(p.grad is None and not p.requires_grad for p in model.network.parameters())


def test_a_trunk_before_the_slot_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model()
    encoded = encoded_rows(model, "after-query")
    prompt = SoftPrompt.from_seed(encoded.slots, model)
    forward = Forward(model, encoded.examples)
    first = forward.compute_trunk(prompt)
    assert forward.compute_trunk(prompt) is first
    assert all(not t.requires_grad for pair in first.layers for t in pair)


def test_known_models_share_their_trunk_and_recurrent_ones_fall_back() -> None:
    for architecture, expected in [("qwen2", True), ("gpt2", True), ("gemma2", True), ("mamba", False)]:
        model = make_model(architecture)
        encoded = encoded_rows(model, "system")
        prompt = SoftPrompt.from_seed(encoded.slots, model)
        assert can_share_trunk(model, encoded.examples, prompt) is expected, architecture
