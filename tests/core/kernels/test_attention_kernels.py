"""Kernels that give normalisers: by them, parts are attention over the whole, and a kernel that errs is found out.

CUDA's are run by the rules that their C++ follows (`cuda_rules`); whether a GPU follows them only a GPU can show.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from tests.conftest import make_network
from tests.core.kernels.cuda_rules import cuda_rules
from torch import Tensor

from embedgrad_cli.core.kernels import attention_kernels
from embedgrad_cli.core.kernels.attention_kernels import FLASH, KERNELS, FlashKernel, Part, suits_flash
from embedgrad_cli.core.kernels.attention_trial import TOLERANCE, UNITS, attended, kernel_difference, relative_error
from embedgrad_cli.core.kernels.packed_batch import PackedBatch
from embedgrad_cli.core.kernels.shared_prefix_attention import attention, prepare_attention

CPU, CUDA = KERNELS["cpu"], KERNELS["cuda"]


@pytest.fixture(autouse=True)
def rules() -> Iterator[None]:
    with cuda_rules():
        yield


def by_kernels_of(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the CPU compute as this device does; `cuda, old` is a GPU without flash attention."""
    monkeypatch.setitem(KERNELS, "cpu", KERNELS[device.partition(",")[0]])
    if device == "cuda":
        monkeypatch.setitem(FLASH, "cpu", FLASH["cuda"])


@pytest.mark.parametrize("device", ["cpu", "cuda", "cuda, old"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("before", [(0, 0, 0), (3, 0, 70)], ids=["new rows", "rows with a cache"])
@pytest.mark.parametrize("shape", [(9, 3, 64), (4, 4, 8)], ids=["grouped", "a key head each"])
def test_parts_are_attention_over_the_whole(
    monkeypatch: pytest.MonkeyPatch,
    device: str,
    dtype: torch.dtype,
    before: tuple[int, ...],
    shape: tuple[int, int, int],
) -> None:
    by_kernels_of(device, monkeypatch)
    limit = 1e-6 if dtype == torch.float32 else torch.finfo(dtype).eps
    for found, expected in zip(*attended(attention, torch.device("cpu"), dtype, shape, before), strict=True):
        assert found.dtype == dtype
        assert relative_error(found, expected) <= limit


class WrongNorms(type(CUDA)):  # type: ignore[misc]
    def attend(self, part: Part) -> tuple[Tensor, Tensor]:
        output, norms = super().attend(part)
        return output, norms * 1.05


class NoNumber(type(CUDA)):  # type: ignore[misc]
    """In one of the six tensors that are compared."""

    def gradients(self, part: Part, gradient: Tensor, output: Tensor, norms: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        of_query, of_key, of_value = super().gradients(part, gradient, output, norms)
        return of_query, of_key, of_value * torch.nan


class WrongLayout(type(CUDA)):  # type: ignore[misc]
    """The output as it comes, which no check of the C++ notices."""

    def gradients(self, part: Part, gradient: Tensor, output: Tensor, norms: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        usual = attention_kernels._attend_on_cuda_backward

        def as_it_comes(*given: object, **more: object) -> object:
            return usual(*given[:5], output.contiguous(), *given[6:], **more)

        attention_kernels._attend_on_cuda_backward = as_it_comes
        try:
            return super().gradients(part, gradient, output, norms)
        finally:
            attention_kernels._attend_on_cuda_backward = usual


class Raises(type(CUDA)):  # type: ignore[misc]
    def gradients(self, part: Part, gradient: Tensor, output: Tensor, norms: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        raise RuntimeError("cutlassB: no kernel found to launch!\nmore")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("kernel", "words"),
    [(WrongNorms, "or gradients"), (NoNumber, "nan"), (WrongLayout, "shared prefix"), (Raises, "no kernel found")],
)
def test_a_kernel_that_errs_is_not_used(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    kernel: type,
    words: str,
    dtype: torch.dtype,
) -> None:
    network = make_network("llama", 100).to(dtype)
    ids = torch.arange(6)[None]
    plain = network(ids).logits
    monkeypatch.setitem(KERNELS, "cpu", kernel())
    assert not prepare_attention(network)
    assert network.config._attn_implementation == "sdpa"
    assert torch.equal(network(ids).logits, plain)
    assert words in caplog.text


class WrongRows(FlashKernel):
    """Each query sees itself alone, as if rows were one token long."""

    def attend_rows(
        self, query: Tensor, key: Tensor, value: Tensor, scale: float | None, batch: PackedBatch
    ) -> tuple[Tensor, Tensor]:
        group = query.shape[1] // key.shape[1]
        norms = (query * key.repeat_interleave(group, 1)).float().sum(-1) * query.shape[-1] ** -0.5
        return value.repeat_interleave(group, 1), norms


def test_flash_attention_that_errs_is_not_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    by_kernels_of("cuda", monkeypatch)
    monkeypatch.setitem(FLASH, "cpu", WrongRows())
    assert prepare_attention(make_network("llama", 100)), "in float32 it is not asked for"
    assert not prepare_attention(make_network("llama", 100).bfloat16())
    assert "values or gradients" in caplog.text


@pytest.mark.parametrize(
    ("dtype", "size", "suits"),
    [
        (torch.bfloat16, 64, True),
        (torch.float16, 256, True),
        (torch.float32, 64, False),
        (torch.float16, 20, False),
        (torch.float16, 264, False),
    ],
)
def test_what_suits_flash_attention(dtype: torch.dtype, size: int, suits: bool) -> None:
    assert suits_flash(torch.zeros(1, 2, 3, size, dtype=dtype)) is suits


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("architecture", ["qwen2", "qwen3", "llama", "gemma", "gpt2"])
def test_cuda_s_kernel_is_used(monkeypatch: pytest.MonkeyPatch, architecture: str, dtype: torch.dtype) -> None:
    by_kernels_of("cuda", monkeypatch)
    network = make_network(architecture, 100).to(dtype)
    assert kernel_difference(attention, network) is None
    assert prepare_attention(network)
    assert max(TOLERANCE, UNITS * torch.finfo(dtype).eps) < 0.1


def test_a_device_without_a_kernel_is_told(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.delitem(KERNELS, "cpu")
    with caplog.at_level("INFO"):
        assert not prepare_attention(make_network("llama", 100))
    assert "normalisers" in caplog.text
