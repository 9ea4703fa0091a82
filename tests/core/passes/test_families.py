"""Recurrent, hybrid and old families, also those whose `generate` refuses embeddings, answer as by token ids."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
import transformers as tf
from tests.core.passes.parity import encoded_rows
from tests.core.passes.test_trunk_check import SHAPE, model_of, reason
from torch.nn.functional import cross_entropy

from embedgrad_cli.core.model.language_model import LanguageModel
from embedgrad_cli.core.passes import plain
from embedgrad_cli.core.passes.forward import Forward
from embedgrad_cli.core.passes.plain import plain_losses
from embedgrad_cli.core.passes.sampling import Sampling
from embedgrad_cli.core.passes.scoring import generate
from embedgrad_cli.core.prompt.soft_prompt import SoftPrompt
from embedgrad_cli.core.text.encoding import Encoded
from embedgrad_cli.errors import ModelError

MAMBA = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_n_groups": 1, "mamba_d_state": 8, "mamba_expand": 2}
GPT = {"n_positions": 512, "n_embd": 32, "n_layer": 2, "n_head": 4, "initializer_range": 0.2}
STATES = {"hidden_size": 32, "num_hidden_layers": 2}
BERT = STATES | {"num_attention_heads": 4, "intermediate_size": 64, "initializer_range": 0.2}
HYBRID = {"layers_block_type": ["mamba", "hybrid"], "hybrid_layer_ids": [1], "num_mem_blocks": 1, "adapter_rank": 4}
ZAMBA = HYBRID | {"mamba_d_state": 8, "mamba_headdim": 8, "n_mamba_heads": 8, "mamba_ngroups": 1, "chunk_size": 16}
FAMILIES: dict[str, Callable[[int], Any]] = {
    "bamba": lambda v: tf.BambaForCausalLM(tf.BambaConfig(**SHAPE, **MAMBA, vocab_size=v, attn_layer_indices=[1])),
    "zamba2": lambda v: tf.Zamba2ForCausalLM(tf.Zamba2Config(**SHAPE, **ZAMBA, vocab_size=v)),
    "minimax": lambda v: tf.MiniMaxForCausalLM(
        tf.MiniMaxConfig(
            **SHAPE, vocab_size=v, head_dim=8, num_local_experts=2, layer_types=["linear_attention", "full_attention"]
        )
    ),
    "openai-gpt": lambda v: tf.OpenAIGPTLMHeadModel(tf.OpenAIGPTConfig(**GPT, vocab_size=v)),
    "ctrl": lambda v: tf.CTRLLMHeadModel(tf.CTRLConfig(**GPT, vocab_size=v, dff=64)),
    "mamba": lambda v: tf.MambaForCausalLM(tf.MambaConfig(**STATES, vocab_size=v, state_size=4, initializer_range=0.4)),
    "mamba2": lambda v: tf.Mamba2ForCausalLM(
        tf.Mamba2Config(**STATES, vocab_size=v, state_size=8, num_heads=8, head_dim=8, n_groups=1, chunk_size=16)
    ),
    "rwkv": lambda v: tf.RwkvForCausalLM(tf.RwkvConfig(**STATES, vocab_size=v, context_length=512)),
    "xlstm": lambda v: tf.xLSTMForCausalLM(
        tf.xLSTMConfig(**STATES, vocab_size=v, num_blocks=2, num_heads=2, chunk_size=16)
    ),
    "recurrent_gemma": lambda v: tf.RecurrentGemmaForCausalLM(
        tf.RecurrentGemmaConfig(**BERT | {"num_hidden_layers": 3}, vocab_size=v, attention_window_size=64, lru_width=32)
    ),
}
NEW_TOKENS = 12


def by_ids(model: LanguageModel, encoded: Encoded) -> list[list[list[int]]]:
    """The reference: the likeliest token after all ids before it, one at a time, without a cache."""
    answers = []
    for example in encoded.examples:
        answer: list[int] = []
        ids = [token if token >= 0 else encoded.slots.flat_ids[-1 - token] for token in example.tokens]
        while len(answer) < NEW_TOKENS:
            token = int(model.network(input_ids=torch.tensor([ids + answer]), use_cache=False).logits[0, -1].argmax())
            if token in model.end_ids:
                break
            answer.append(token)
        answers.append([answer])
    return answers


def losses_by_ids(model: LanguageModel, encoded: Encoded) -> torch.Tensor:
    losses = []
    for example in encoded.examples:
        ids = [token if token >= 0 else encoded.slots.flat_ids[-1 - token] for token in example.tokens]
        logits = model.network(input_ids=torch.tensor([[*ids, *example.target]]), use_cache=False).logits[0]
        predictions = logits[len(ids) - 1 : -1]
        losses.append(cross_entropy(predictions, torch.tensor(example.target), reduction="none"))
    return torch.cat(losses)


@pytest.mark.parametrize("family", FAMILIES)
def test_answers_and_losses_are_those_of_token_ids(family: str) -> None:
    model = model_of(FAMILIES[family])
    encoded = encoded_rows(model, "system")
    prompt = SoftPrompt.from_seed(encoded.slots, model)
    shares_trunk = reason(model) is None
    forward = Forward(model, encoded.examples, shares_trunk)
    assert generate(forward, encoded.examples, prompt, NEW_TOKENS, 4) == by_ids(model, encoded)

    losses = plain_losses(model, encoded.examples, prompt).detach()
    torch.testing.assert_close(losses, losses_by_ids(model, encoded), rtol=1e-4, atol=1e-4)
    forward.accumulate_gradient(encoded.examples, prompt)
    assert prompt.vectors.grad is not None
    assert prompt.vectors.grad.norm() > 0


def encoder(vocabulary: int) -> Any:
    return tf.BertLMHeadModel(tf.BertConfig(**BERT, vocab_size=vocabulary))


def xlnet(vocabulary: int) -> Any:
    return tf.XLNetLMHeadModel(
        tf.XLNetConfig(vocab_size=vocabulary, d_model=32, n_layer=2, n_head=4, d_inner=64, initializer_range=0.2)
    )


@pytest.mark.parametrize("make", [encoder, xlnet])
def test_a_model_that_sees_what_comes_later_is_refused_by_name(make: Callable[[int], Any]) -> None:
    model = model_of(make)
    with pytest.raises(ModelError, match=model.network.config.model_type):
        reason(model)


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(num_samples=3, temperature=2.0, top_p=0.9, seed=1)])
@pytest.mark.parametrize("spoil", [0, 1, 5])
def test_a_cache_decides_nothing(spoil: int, sampling: Sampling, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the shared prefix, in full, and with drafts of which every so many tokens are wrong: the same answers."""
    model = model_of(lambda size: tf.Qwen2ForCausalLM(tf.Qwen2Config(**SHAPE, vocab_size=size)))
    encoded = encoded_rows(model, "system")
    prompt = SoftPrompt.from_seed(encoded.slots, model)
    draft = plain._Answer._draft

    def spoilt(self: Any) -> Sequence[int]:
        return [token + 1 if spoil and i % spoil == spoil - 1 else token for i, token in enumerate(draft(self))]

    monkeypatch.setattr(plain._Answer, "_draft", spoilt)
    monkeypatch.setattr(plain, "WORTH_DRAFTING", 1)
    fast, slow = (
        generate(Forward(model, encoded.examples, shares), encoded.examples, prompt, NEW_TOKENS, 4, sampling)
        for shares in (True, False)
    )
    assert slow == fast
    assert {len(of_row) for of_row in fast} == {sampling.num_samples}
