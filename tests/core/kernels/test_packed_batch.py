from __future__ import annotations

import pytest
import torch

from embedgrad_cli.core.kernels.packed_batch import PackedBatch

SEQUENCES = [[5, 6, 7], [], [8], [9, 10]]


@pytest.mark.parametrize("left", [False, True])
def test_sequences_are_padded_to_one_width(left: bool) -> None:
    batch = PackedBatch.of(SEQUENCES, torch.device("cpu"), left=left)
    for sequence, tokens, mask in zip(SEQUENCES, batch.padded_tokens, batch.mask, strict=True):
        assert tokens[mask].tolist() == sequence
        assert tokens[~mask].tolist() == [0] * (3 - len(sequence))
        assert mask.tolist() == sorted(mask.tolist(), reverse=not left)


@pytest.mark.parametrize("left", [False, True])
def test_unpad_undoes_pad(left: bool) -> None:
    batch = PackedBatch.of(SEQUENCES, torch.device("cpu"), left=left)
    packed = torch.randn(1, 2, 6, 4)
    padded = batch.pad(packed)
    assert padded.shape == (4, 2, 3, 4)
    assert torch.equal(batch.unpad(padded), packed)
    assert torch.equal(padded[0], packed[0, :, :3])
