"""Numbers of the host on the device."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from embedgrad_cli.core.kernels.packed_batch import PackedBatch
from embedgrad_cli.core.kernels.placed import placed


def test_numbers_keep_their_type_and_order() -> None:
    cpu = torch.device("cpu")
    assert torch.equal(placed([3, 1, 2], cpu), torch.tensor([3, 1, 2]))
    assert torch.equal(placed([[1, 2]], cpu, torch.float32), torch.tensor([[1.0, 2.0]]))
    assert torch.equal(placed(torch.tensor([True]), cpu), torch.tensor([True]))


@pytest.mark.parametrize(("device", "waits"), [("cuda", False), ("mps", True)])
def test_a_copy_to_a_gpu_does_not_wait_for_it(monkeypatch: pytest.MonkeyPatch, device: str, waits: bool) -> None:
    asked = []
    monkeypatch.setattr(Tensor, "to", lambda self, *to, non_blocking=False: asked.append((*to, non_blocking)) or self)
    placed([1], torch.device(device))
    assert asked == [(torch.device(device), not waits)]


@pytest.mark.parametrize("left", [False, True])
def test_places_in_a_padded_batch(left: bool) -> None:
    rows = [[5, 6], [7], [8, 9, 10], []]
    batch = PackedBatch.of(rows, torch.device("cpu"), left)
    expected = [[0, 5, 6], [0, 0, 7], [8, 9, 10], [0, 0, 0]] if left else [[5, 6, 0], [7, 0, 0], [8, 9, 10], [0, 0, 0]]
    assert batch.padded_tokens.tolist() == expected
    assert torch.equal(batch.mask, batch.padded_tokens != 0)
    assert torch.equal(batch.mask.flatten().nonzero().squeeze(1), batch.token_index)
