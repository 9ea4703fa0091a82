"""Attention over a trunk in place: the numbers and gradients of attention over one sequence, and who takes part."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tests.conftest import make_model
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from embedgrad_cli.core.kernels.kv_cache import Past, SharedCache
from embedgrad_cli.core.kernels.packed_batch import Rows
from embedgrad_cli.core.kernels.shared_prefix_attention import attention, reads_trunk_in_place

HEADS, KEY_HEADS, SIZE, TRUNK = 4, 2, 8, 5


def random(*shape: int) -> Tensor:
    return torch.randn(*shape).requires_grad_()


def expected(query: Tensor, trunk: tuple[Tensor, Tensor], own: list[Tensor], starts: list[int]) -> Tensor:
    """Each row on its own, as one sequence: `[1, heads, total, size]`; `own` begins with what a row had before."""
    outputs = []
    for start, (keys, values), queries in zip(starts, own, query, strict=True):
        k, v = (torch.cat([t[0], o], dim=1).repeat_interleave(2, 0) for t, o in zip(trunk, (keys, values), strict=True))
        seen = torch.ones(queries.shape[1], k.shape[1], dtype=torch.bool).tril(TRUNK + start)
        outputs.append(scaled_dot_product_attention(queries, k, v, attn_mask=seen))
    return torch.cat(outputs, dim=1)[None]


@pytest.mark.parametrize("before", [[0, 0, 0], [3, 1, 2]], ids=["new rows", "rows with a past"])
@pytest.mark.parametrize("lengths", [[4, 1, 6], [1, 1, 1]], ids=["ragged", "one token each"])
def test_values_and_gradients_are_those_of_whole_sequences(before: list[int], lengths: list[int]) -> None:
    torch.manual_seed(0)
    rows = Rows.of([range(1, length + 1) for length in lengths], torch.device("cpu"))
    trunk = (random(1, KEY_HEADS, TRUNK, SIZE), random(1, KEY_HEADS, TRUNK, SIZE))
    kept = [torch.randn(3, KEY_HEADS, max(before), SIZE) for _ in range(2)]
    mask = torch.arange(max(before)) < torch.tensor(before)[:, None]
    past = Past([(kept[0], kept[1])] if max(before) else [], mask, [trunk])
    total = sum(lengths)
    query, keys, values = (
        random(1, HEADS, total, SIZE),
        random(1, KEY_HEADS, total, SIZE),
        random(1, KEY_HEADS, total, SIZE),
    )
    weights = torch.randn(1, HEADS, total, SIZE)

    cache = SharedCache(past, rows, torch.float32)
    found, _ = attention(torch.nn.Module(), query, *cache.update(keys, values, 0), attention_mask=None)
    inputs = [query, keys, values, *trunk]
    gradients = torch.autograd.grad((found.transpose(1, 2) * weights).sum(), inputs)

    own = [
        tuple(torch.cat([k[row, :, :had], new], dim=1) for k, new in zip(kept, (new_keys, new_values), strict=True))
        for row, (had, new_keys, new_values) in enumerate(
            zip(before, keys[0].split(lengths, dim=1), values[0].split(lengths, dim=1), strict=True)
        )
    ]
    wanted = expected(query[0].split(lengths, dim=1), trunk, own, before)  # type: ignore[arg-type]
    torch.testing.assert_close(found.transpose(1, 2), wanted, rtol=1e-5, atol=1e-6)
    for gradient, of_wanted in zip(gradients, torch.autograd.grad((wanted * weights).sum(), inputs), strict=True):
        torch.testing.assert_close(gradient, of_wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("architecture", "reads"),
    [("qwen2", True), ("qwen3", True), ("llama", True), ("gemma", True), ("gpt2", True), ("mistral", False)],
)
def test_who_reads_a_trunk_in_place(architecture: str, reads: bool) -> None:
    model = make_model(architecture)
    assert model.reads_trunk_in_place is reads
    assert replace(model).reads_trunk_in_place is reads, "the same network once more"


def test_a_model_that_treats_its_keys_in_a_way_of_its_own_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model("llama")
    plain = model.network(torch.arange(6)[None]).logits
    update = SharedCache.update

    def copied(self: SharedCache, *args: object) -> tuple[Tensor, Tensor]:
        keys, values = update(self, *args)  # type: ignore[arg-type]
        return keys.clone(), values  # what travels on the keys is lost

    monkeypatch.setattr(SharedCache, "update", copied)
    assert not reads_trunk_in_place(model.network)
    assert model.network.config._attn_implementation == "sdpa"
    assert torch.equal(model.network(torch.arange(6)[None]).logits, plain)


def test_plain_forward_passes_go_on_as_before() -> None:
    model = make_model("qwen2")
    ids = torch.arange(12).view(2, 6)
    before = model.network(ids, attention_mask=torch.tensor([[1] * 6, [0, 0, 1, 1, 1, 1]])).logits
    assert model.reads_trunk_in_place
    after = model.network(ids, attention_mask=torch.tensor([[1] * 6, [0, 0, 1, 1, 1, 1]])).logits
    assert torch.equal(before, after)
