"""Attention over a shared prefix in place: values and gradients as over one sequence, and who takes part."""

from __future__ import annotations

import copy

import pytest
import torch
from tests.conftest import SHAPE, make_network, make_tokenizer
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import LlamaConfig, LlamaForCausalLM

from embedgrad_cli.core.kernels.kv_cache import KeyValues, PackedCache
from embedgrad_cli.core.kernels.packed_batch import PackedBatch
from embedgrad_cli.core.kernels.shared_prefix_attention import attention, prepare_attention
from embedgrad_cli.core.model.language_model import LanguageModel

HEADS, KEY_HEADS, SIZE, PREFIX = 4, 2, 8, 5


def random(*shape: int) -> Tensor:
    return torch.randn(*shape).requires_grad_()


def expected(query: Tensor, prefix: tuple[Tensor, Tensor], own: list[Tensor], starts: list[int]) -> Tensor:
    """Each row on its own, as one sequence: `[1, heads, total, size]`; `own` begins with what a row had before."""
    outputs = []
    for start, (keys, values), queries in zip(starts, own, query, strict=True):
        k, v = (
            torch.cat([t[0], o], dim=1).repeat_interleave(2, 0) for t, o in zip(prefix, (keys, values), strict=True)
        )
        seen = torch.ones(queries.shape[1], k.shape[1], dtype=torch.bool).tril(PREFIX + start)
        outputs.append(scaled_dot_product_attention(queries, k, v, attn_mask=seen))
    return torch.cat(outputs, dim=1)[None]


@pytest.mark.parametrize("before", [[0, 0, 0], [3, 1, 2]], ids=["new rows", "rows with a cache"])
@pytest.mark.parametrize("lengths", [[4, 1, 6], [1, 1, 1]], ids=["ragged", "one token each"])
def test_values_and_gradients_are_those_of_whole_sequences(before: list[int], lengths: list[int]) -> None:
    torch.manual_seed(0)
    batch = PackedBatch.of([range(1, length + 1) for length in lengths], torch.device("cpu"))
    prefix = (random(1, KEY_HEADS, PREFIX, SIZE), random(1, KEY_HEADS, PREFIX, SIZE))
    kept = [torch.randn(3, KEY_HEADS, max(before), SIZE) for _ in range(2)]
    mask = torch.arange(max(before)) < torch.tensor(before)[:, None]
    key_values = KeyValues([(kept[0], kept[1])] if max(before) else [], mask, [prefix])
    total = sum(lengths)
    query, keys, values = (
        random(1, HEADS, total, SIZE),
        random(1, KEY_HEADS, total, SIZE),
        random(1, KEY_HEADS, total, SIZE),
    )
    weights = torch.randn(1, HEADS, total, SIZE)

    cache = PackedCache(key_values, batch, torch.float32)
    output, _ = attention(torch.nn.Module(), query, *cache.update(keys, values, 0), attention_mask=None)
    inputs = [query, keys, values, *prefix]
    gradients = torch.autograd.grad((output.transpose(1, 2) * weights).sum(), inputs)

    own = [
        tuple(torch.cat([k[row, :, :had], new], dim=1) for k, new in zip(kept, (new_keys, new_values), strict=True))
        for row, (had, new_keys, new_values) in enumerate(
            zip(before, keys[0].split(lengths, dim=1), values[0].split(lengths, dim=1), strict=True)
        )
    ]
    reference = expected(query[0].split(lengths, dim=1), prefix, own, before)  # type: ignore[arg-type]
    torch.testing.assert_close(output.transpose(1, 2), reference, rtol=1e-5, atol=1e-6)
    for gradient, of_reference in zip(gradients, torch.autograd.grad((reference * weights).sum(), inputs), strict=True):
        torch.testing.assert_close(gradient, of_reference, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("architecture", "reads"),
    [("qwen2", True), ("qwen3", True), ("llama", True), ("gemma", True), ("gpt2", True), ("mistral", False)],
)
def test_who_reads_a_shared_prefix_in_place(architecture: str, reads: bool) -> None:
    network = make_network(architecture, 100)
    assert prepare_attention(network) is reads
    assert prepare_attention(network) is reads, "the same network once more"


def test_rounding_of_half_precision_is_no_reason_against_it() -> None:
    """A deep network that enlarges what bfloat16 rounds off, as SmolLM2 does."""
    torch.manual_seed(0)
    network = LlamaForCausalLM(LlamaConfig(**{**SHAPE, "num_hidden_layers": 24}, vocab_size=100)).eval()
    with torch.no_grad():
        for parameter in network.model.layers.parameters():
            parameter *= 6 if parameter.dim() == 2 else 1
    rounded = copy.deepcopy(network).bfloat16()
    exact, coarse = (each.model(torch.arange(9)[None]).last_hidden_state for each in (network, rounded))
    assert (coarse - exact).norm() > 0.1 * exact.norm(), "or this test says nothing"
    assert prepare_attention(rounded)
    assert rounded.dtype == torch.bfloat16
    assert len(rounded.model.layers) == 24


def test_half_precision_gives_the_gradients_of_float32() -> None:
    """But for what bfloat16 rounds off in the values and in the gradients themselves."""
    torch.manual_seed(0)
    lengths = [4, 1, 6]
    batch = PackedBatch.of([range(1, length + 1) for length in lengths], torch.device("cpu"))
    shapes = [
        (1, HEADS, 11, SIZE),
        (1, KEY_HEADS, 11, SIZE),
        (1, KEY_HEADS, 11, SIZE),
        *[(1, KEY_HEADS, PREFIX, SIZE)] * 2,
    ]
    values, weights = [torch.randn(*shape).bfloat16().float() for shape in shapes], torch.randn(1, HEADS, 11, SIZE)

    def gradients(dtype: torch.dtype) -> list[Tensor]:
        query, keys, values_of, *prefix = inputs = [t.to(dtype).requires_grad_() for t in values]
        cache = PackedCache(KeyValues([], torch.zeros(3, 0, dtype=torch.bool), [tuple(prefix)]), batch, dtype)
        output, _ = attention(torch.nn.Module(), query, *cache.update(keys, values_of, 0), attention_mask=None)
        return list(torch.autograd.grad((output.transpose(1, 2) * weights.to(dtype)).sum(), inputs))

    for coarse, exact in zip(gradients(torch.bfloat16), gradients(torch.float32), strict=True):
        assert coarse.dtype == torch.bfloat16
        assert (coarse.float() - exact).norm() <= 2**-7 * exact.norm()


def test_a_language_model_leaves_its_network_as_it_is() -> None:
    tokenizer = make_tokenizer()
    network = make_network("qwen2", len(tokenizer))
    model = LanguageModel(network, tokenizer, "tests/qwen2", None, True)
    assert not model.reads_trunk_in_place
    assert model.has_plain_head
    assert network.config._attn_implementation == "sdpa"
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in network.modules())


def test_a_model_that_treats_its_keys_in_a_way_of_its_own_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    network = make_network("llama", 100)
    plain = network(torch.arange(6)[None]).logits
    update = PackedCache.update

    def copied(self: PackedCache, *args: object) -> tuple[Tensor, Tensor]:
        keys, values = update(self, *args)  # type: ignore[arg-type]
        return keys.clone(), values  # what travels on the keys is lost

    monkeypatch.setattr(PackedCache, "update", copied)
    assert not prepare_attention(network)
    assert network.config._attn_implementation == "sdpa"
    assert torch.equal(network(torch.arange(6)[None]).logits, plain)


def test_plain_forward_passes_go_on_as_before() -> None:
    network, ids = make_network("qwen2", 100), torch.arange(12).view(2, 6)
    mask = torch.tensor([[1] * 6, [0, 0, 1, 1, 1, 1]])
    before = network(ids, attention_mask=mask).logits
    assert prepare_attention(network)
    after = network(ids, attention_mask=mask).logits
    assert torch.equal(before, after)
