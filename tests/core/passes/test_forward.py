"""Promises 1 to 3: step 0 is the text prompt, the trunk changes nothing, the weights stay as they are."""

from __future__ import annotations

import hashlib

import pytest
import torch
from tests.conftest import PLACEMENTS, ROWS, SEEDS, make_model
from tests.core.passes.parity import ARCHITECTURES, encoded_rows, gradient_of, moved_prompt

from embedgrad_cli.core.model.language_model import LanguageModel
from embedgrad_cli.core.passes.forward import Forward
from embedgrad_cli.core.passes.network_pass import hidden_states_at, logits_and_cache, logits_at
from embedgrad_cli.core.passes.plain import plain_losses
from embedgrad_cli.core.prompt.soft_prompt import SoftPrompt


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
        logits, _ = logits_and_cache(model, [branch], trunk, prompt, [len(branch) - 1])
        torch.testing.assert_close(logits[0], expected, rtol=1e-4, atol=1e-5)
        # Where nothing is shared the very same numbers go in: equal to the last bit.
        embeds = prompt.embed(torch.tensor([example.tokens]), model)
        assert torch.equal(embeds, model.embed(torch.tensor([ids])))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("micro_batch_size", [None, 2])
def test_trunk_gives_the_plain_loss_and_gradient(
    architecture: str, placement: str, micro_batch_size: int | None
) -> None:
    model = make_model(architecture)
    encoded = encoded_rows(model, placement)
    prompt = moved_prompt(encoded, model)
    forward = Forward(model, encoded.examples)
    assert len(forward.trunk) > 2
    plain = plain_losses(model, encoded.examples, prompt).mean()
    expected = gradient_of(plain, prompt)
    loss = forward.accumulate_gradient(encoded.examples, prompt, micro_batch_size)
    assert loss.item() == pytest.approx(plain.item(), rel=1e-5)
    assert prompt.vectors.grad is not None
    assert (prompt.vectors.grad - expected).norm() <= 1e-5 * expected.norm()


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


@pytest.mark.parametrize("architecture", ["qwen2", "mistral", "gpt2"])
def test_the_forms_of_a_pass_agree(architecture: str) -> None:
    """Logits with and without a cache are the same, and hidden states are what the output layer makes them of."""
    model = make_model(architecture)
    encoded = encoded_rows(model, "system")
    prompt = moved_prompt(encoded, model)
    key_values = Forward(model, encoded.examples).compute_trunk(prompt).expand(2, model.reads_trunk_in_place)
    sequences, positions = [[5, 6, 7], [8]], [0, 2, 3]
    logits, extended = logits_and_cache(model, sequences, key_values, prompt, positions)
    assert extended.width == key_values.width + 3
    assert torch.equal(logits_at(model, sequences, key_values, prompt, positions), logits)
    hidden = hidden_states_at(model, sequences, key_values, prompt, positions)
    torch.testing.assert_close(model.network.get_output_embeddings()(hidden), logits)
