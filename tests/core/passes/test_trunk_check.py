"""What a model is refused for, and what it is computed in full for, is found by trying it out."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import pytest
import torch
import transformers as tf
from tests.conftest import SHAPE, make_model, make_tokenizer
from tests.core.passes.parity import encoded_rows, plain_gradient

from embedgrad_cli.core.kernels.memory import OutOfMemory
from embedgrad_cli.core.kernels.shared_prefix_attention import prepare_attention
from embedgrad_cli.core.kernels.stand_in import layers_of_every_kind
from embedgrad_cli.core.model.language_model import LanguageModel
from embedgrad_cli.core.model.trial import trial_of
from embedgrad_cli.core.passes import trunk_check
from embedgrad_cli.core.passes.forward import Forward
from embedgrad_cli.core.passes.trunk_check import why_no_trunk
from embedgrad_cli.core.prompt.soft_prompt import SoftPrompt
from embedgrad_cli.errors import ModelError


def model_of(make: Callable[[int], Any]) -> LanguageModel:
    tokenizer = make_tokenizer()
    torch.manual_seed(0)
    network = make(len(tokenizer)).requires_grad_(False).eval()
    return LanguageModel(network, tokenizer, "tests/model", None, True, prepare_attention(network))


def reason(model: LanguageModel, placement: str = "system") -> str | None:
    encoded = encoded_rows(model, placement)
    return why_no_trunk(model, encoded.examples, SoftPrompt.from_seed(encoded.slots, model))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    ("architecture", "shares"), [("qwen2", True), ("gpt2", True), ("gemma2", True), ("mistral", True), ("mamba", False)]
)
def test_known_models_share_their_trunk_and_recurrent_ones_do_not(
    architecture: str, shares: bool, dtype: torch.dtype
) -> None:
    """In half precision too, where rounding alone may change a gradient by more than ten per cent."""
    model = make_model(architecture)
    model.network.to(dtype)
    assert (reason(model) is None) is shares


def falcon_h1(vocabulary: int) -> Any:
    more = {"mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_n_groups": 1}
    return tf.FalconH1ForCausalLM(
        tf.FalconH1Config(**SHAPE, vocab_size=vocabulary, embedding_multiplier=5.0, head_dim=8, **more)
    )


def gemma3n(vocabulary: int) -> Any:
    more = {"vocab_size_per_layer_input": vocabulary, "hidden_size_per_layer_input": 8, "num_kv_shared_layers": 0}
    more |= {"laurel_rank": 4, "altup_num_inputs": 2, "activation_sparsity_pattern": [0.0] * 4, "sliding_window": 64}
    more |= {"layer_types": ["sliding_attention", "full_attention"] * 2, "head_dim": 8}
    shape = SHAPE | {"num_hidden_layers": 4, "intermediate_size": [64] * 4}
    network = tf.Gemma3nForCausalLM(tf.Gemma3nTextConfig(**shape, vocab_size=vocabulary, **more))
    for layer in network.model.layers:
        torch.nn.init.ones_(layer.altup.correct_output_scale)  # with the initial 0 nothing is heard of the ids
    return network


def gemma4(vocabulary: int) -> Any:
    """It finds the ids again by the embeddings it is given, which works for a text and for nothing else."""
    more = {"vocab_size_per_layer_input": vocabulary, "hidden_size_per_layer_input": 8, "num_kv_shared_layers": 0}
    more |= {"layer_types": ["sliding_attention", "full_attention"], "head_dim": 8, "global_head_dim": 8}
    return tf.Gemma4ForCausalLM(tf.Gemma4TextConfig(**SHAPE, vocab_size=vocabulary, **more))


@pytest.mark.parametrize("make", [falcon_h1, gemma3n, gemma4])
def test_a_model_that_does_more_with_ids_than_look_them_up_is_refused_by_name(make: Callable[[int], Any]) -> None:
    model = model_of(make)
    with pytest.raises(ModelError, match=model.network.config.model_type):
        reason(model)


def gpt_neo(vocabulary: int) -> Any:
    """Every other layer looks back four *places*, so padding between two tokens changes what it sees."""
    shape = {"hidden_size": 32, "num_layers": 2, "num_heads": 4, "max_position_embeddings": 512}
    local = {"window_size": 4, "attention_types": [[["global", "local"], 1]], "initializer_range": 0.2}
    return tf.GPTNeoForCausalLM(
        tf.GPTNeoConfig(**shape, **local, vocab_size=vocabulary, bos_token_id=0, eos_token_id=0)
    )


def phi3_longrope(vocabulary: int) -> Any:
    """Beyond 60 tokens all keys are turned by other angles."""
    factors = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [9.0] * 4, "rope_theta": 10000.0}
    shape = SHAPE | {"num_key_value_heads": 4}
    return tf.Phi3ForCausalLM(
        tf.Phi3Config(**shape, vocab_size=vocabulary, rope_parameters=factors, original_max_position_embeddings=60)
    )


@pytest.mark.parametrize("make", [gpt_neo, phi3_longrope])
def test_what_depends_on_padding_or_on_length_is_computed_in_full(make: Callable[[int], Any]) -> None:
    model = model_of(make)
    encoded = encoded_rows(model, "system")
    shortest = sorted(encoded.examples, key=lambda example: example.length)[:1]
    prompt = SoftPrompt.from_seed(encoded.slots, model)
    assert why_no_trunk(model, shortest, prompt) is None, "alone, the shortest example would not show it"
    assert why_no_trunk(model, encoded.examples, prompt)


def test_only_longer_examples_are_tried_out_again(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def counted(model: LanguageModel) -> AbstractContextManager[LanguageModel]:
        tried.append(model)
        return trial_of(model)

    monkeypatch.setattr(trunk_check, "trial_of", counted)
    model = make_model("qwen2")
    encoded = encoded_rows(model, "system")
    prompt = SoftPrompt.from_seed(encoded.slots, model)
    ordered = sorted(encoded.examples, key=lambda example: example.length)
    assert ordered[0].length < ordered[1].length < ordered[-1].length

    for examples, trials in [
        (ordered[:1], 1),  # of one length: nothing was padded
        (ordered[:2], 2),
        (ordered[:1], 2),
        (ordered, 3),
        (ordered[1:], 3),
    ]:
        assert why_no_trunk(model, examples, prompt) is None
        assert len(tried) == trials


def test_a_model_that_failed_is_tried_out_again() -> None:
    model = model_of(phi3_longrope)
    encoded = encoded_rows(model, "system")
    prompt = SoftPrompt.from_seed(encoded.slots, model)
    for _ in range(2):
        assert why_no_trunk(model, encoded.examples, prompt)


@pytest.mark.parametrize("chunk", [8, 512])
def test_chunks_are_no_obstacle(chunk: int) -> None:
    """Llama 4's layers look back as far as their chunk begins; its `base_model` is the whole network."""
    experts = {"num_local_experts": 2, "intermediate_size_mlp": 64, "head_dim": 8}
    kinds = {"layer_types": ["chunked_attention", "full_attention"], "no_rope_layers": [1, 0]}
    model = model_of(
        lambda size: tf.Llama4ForCausalLM(
            tf.Llama4TextConfig(**SHAPE, **experts, **kinds, vocab_size=size, attention_chunk_size=chunk)
        )
    )
    assert model.sliding_window == chunk
    assert reason(model) is None


def test_an_error_of_the_cache_is_a_reason_and_want_of_memory_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model("qwen2")

    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(Forward, "accumulate_gradient", fail)
    error: Exception = RuntimeError("no such cache")
    assert "no such cache" in (reason(model) or "")
    error = RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
    with pytest.raises(OutOfMemory):
        reason(model)
    assert model.network.config.num_hidden_layers == len(model.network.model.layers) == 2


def test_numbers_that_are_none_are_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a cache gives whose mask hides everything from a token."""
    plain = Forward.accumulate_gradient

    def spoilt(forward: Forward, batch: Any, prompt: SoftPrompt, *more: Any) -> torch.Tensor:
        loss = plain(forward, batch, prompt, *more)
        assert prompt.vectors.grad is not None
        prompt.vectors.grad[0] = torch.nan
        return loss

    monkeypatch.setattr(Forward, "accumulate_gradient", spoilt)
    assert "gradient" in (reason(make_model("qwen2")) or "")


def test_a_trial_has_every_kind_of_layer_and_leaves_the_model_as_it_was() -> None:
    shape = SHAPE | {"num_hidden_layers": 12, "head_dim": 8}
    kinds = ["sliding_attention"] * 3 + ["full_attention"] + ["sliding_attention"] * 8
    model = model_of(
        lambda size: tf.Gemma2ForCausalLM(
            tf.Gemma2Config(**shape, vocab_size=size, layer_types=kinds, sliding_window=16)
        )
    )
    assert layers_of_every_kind(model.network) == 5
    ids = torch.arange(20)[None]
    for dtype in (torch.float32, torch.bfloat16):
        model.network.to(dtype)
        before = model.network(input_ids=ids).logits
        with trial_of(model) as trial:
            assert len(trial.network.model.layers) == 5
            assert trial.dtype == torch.float32
            trial.network(input_ids=ids)
        assert len(model.network.model.layers) == 12
        assert torch.equal(model.network(input_ids=ids).logits, before)


@pytest.mark.slow
@pytest.mark.parametrize("placement", ["system", "before-query", "after-query"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_as_exact_as_the_plain_forward(dtype: torch.dtype, placement: str) -> None:
    """The prompt's gradient against the float32 one of the same weights, at once and in micro-batches.

    Behind the query nothing is shared and both ways round the same sums, so one case may be ahead or behind by chance.
    """
    ratios = [
        ratio for name in ("qwen2", "llama", "gemma2", "gpt2") for ratio in errors_beside_plain(name, dtype, placement)
    ]
    assert sum(ratios) / len(ratios) <= 1, ratios
    assert max(ratios) <= 1.3, ratios


def errors_beside_plain(architecture: str, dtype: torch.dtype, placement: str) -> list[float]:
    """The error of our gradient over that of the plain half-precision forward's, for micro-batches of three sizes."""
    model = make_model(architecture)
    model.network.to(dtype)
    reference = replace(model, network=copy.deepcopy(model.network).float())
    encoded = encoded_rows(model, placement, times=10)
    prompt = SoftPrompt.from_seed(encoded.slots, reference)
    exact = plain_gradient(reference, encoded, prompt)
    plain, errors = (plain_gradient(model, encoded, prompt) - exact).norm(), []
    for size in (None, 4, 1):
        prompt.vectors.grad = None
        Forward(model, encoded.examples).accumulate_gradient(encoded.examples, prompt, size)
        assert prompt.vectors.grad is not None
        errors.append(float((prompt.vectors.grad - exact).norm() / plain))
    return errors


def test_a_loss_scale_that_float16_cannot_hold_is_made_smaller() -> None:
    model = make_model("llama")
    model.network.to(torch.float16)
    encoded = encoded_rows(model, "system")
    gradients = []
    for scale in (1.0, 2.0**40):
        prompt, forward = SoftPrompt.from_seed(encoded.slots, model), Forward(model, encoded.examples)
        forward.loss_scale = scale
        forward.accumulate_gradient(encoded.examples, prompt)
        gradients.append(prompt.vectors.grad)
    assert forward.loss_scale < 2.0**40
    assert torch.allclose(*gradients, rtol=0.05, atol=1e-4)  # type: ignore[arg-type]
    assert trunk_check.TOLERANCE < 0.01
