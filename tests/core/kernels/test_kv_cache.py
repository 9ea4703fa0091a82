"""Keys and values that grow in place hold what keys and values that are copied hold."""

from __future__ import annotations

import torch

from embedgrad_cli.core.kernels.kv_cache import ROOM, KeyValues, PackedCache
from embedgrad_cli.core.kernels.packed_batch import PackedBatch


def test_rows_grow_in_place_as_they_do_by_copies() -> None:
    torch.manual_seed(0)
    layer, prefix = (
        (torch.randn(3, 2, 4, 8), torch.randn(3, 2, 4, 8)),
        (torch.randn(1, 2, 5, 8), torch.randn(1, 2, 5, 8)),
    )
    grown = copied = KeyValues([layer], torch.ones(3, 4, dtype=torch.bool), [prefix])
    batch, moves, earlier = PackedBatch.of([[1]] * 3, torch.device("cpu")), set[int](), list[KeyValues]()
    for _ in range(ROOM + 1):
        new = torch.randn(2, 1, 2, 3, 8).unbind(0)
        of_grown, of_copied = (PackedCache(kv, batch, torch.float32) for kv in (grown.growing(), copied))
        for cache in (of_grown, of_copied):
            cache.update(*new, 0)
        grown, copied = of_grown.extended(), of_copied.extended()
        moves.add(grown.layers[0][0].data_ptr())
        earlier.append(grown)
        for ours, theirs in zip(grown.layers[0], copied.layers[0], strict=True):
            assert torch.equal(ours, theirs)
        assert torch.equal(grown.mask, copied.mask)
    assert len(moves) == 1, "after the first token, the memory stays the same"
    for number, before in enumerate(earlier):  # what was there is not written over
        assert torch.equal(before.layers[0][1], copied.layers[0][1][:, :, : 5 + number])
    kept = grown.select(torch.tensor([2, 0]))
    assert kept.room is None, "a selection is a copy, with no room behind it"
