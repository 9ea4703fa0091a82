"""Keys and values of what examples hold before their first slot, kept across epochs within a memory budget.

The model is frozen and nothing before the first slot depends on the prompt, so these never change during a run. What is
kept of a row (a branch, or suffix) stands right after the prefix that all rows of the run share (the trunk).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from embedgrad_cli.core.kernels.kv_cache import KeyValues, Layers
from embedgrad_cli.core.kernels.packed_batch import PackedBatch
from embedgrad_cli.core.model.language_model import LanguageModel
from embedgrad_cli.core.passes.network_pass import extend_cache
from embedgrad_cli.core.prompt.soft_prompt import SoftPrompt

SHARE_OF_FREE_MEMORY = 0.25  # that the product gives to the cache


class QueryCache:
    """Maps token sequences to the keys and values a forward pass gave for them.

    Args:
        budget: bytes that may be held; what comes later is computed anew each time.
    """

    def __init__(self, budget: int) -> None:
        self.budget, self.size = budget, 0
        self._rows: dict[tuple[int, ...], Layers] = {}

    def get(self, tokens: tuple[int, ...]) -> Layers | None:
        return self._rows.get(tokens)

    def put(self, tokens: tuple[int, ...], layers: Layers) -> None:
        """Keep `[1, heads, len(tokens), head_size]` per layer, if the budget allows."""
        size = sum(t.numel() * t.element_size() for pair in layers for t in pair)
        if tokens not in self._rows and self.size + size <= self.budget:
            self._rows[tokens] = [(k.clone(), v.clone()) for k, v in layers]
            self.size += size

    def give_back(self) -> bool:
        """Keep nothing from now on. Returns: whether something was kept."""
        kept_some = self.size > 0
        self.budget, self.size = 0, 0
        self._rows.clear()
        return kept_some

    def extend(
        self, model: LanguageModel, queries: Sequence[tuple[int, ...]], key_values: KeyValues, prompt: SoftPrompt
    ) -> KeyValues:
        """`extend_cache` by token sequences without slots, of which those that are kept are not computed again.

        Args: queries: not all of them empty. key_values: of each row the run's trunk, and nothing else.
        """
        rows = [self.get(query) for query in queries]
        missing = [i for i, row in enumerate(rows) if row is None and queries[i]]
        # On a CPU one by one: their numbers must not depend on what they were batched with, or a resumed run, which
        # meets them in other batches, would differ from an uninterrupted one by rounding.
        for part in [[i] for i in missing] if model.device.type == "cpu" else [missing] * bool(missing):
            computed = extend_cache(model, [queries[i] for i in part], key_values.first(len(part)), prompt)
            lengths = [len(queries[i]) for i in part]
            for i, row in zip(part, _rows_of(computed.layers, key_values.mask.shape[1], lengths), strict=True):
                rows[i] = row
                self.put(queries[i], row)
        known = next(row for row in rows if row is not None)
        nothing = [(k[:, :, :0], v[:, :, :0]) for k, v in known]  # of a query that the trunk holds as a whole
        kept = _stack([nothing if row is None else row for row in rows])
        mask = torch.cat([key_values.mask, PackedBatch.of(queries, model.device).mask], dim=1)
        return KeyValues(_concatenate(key_values.layers, kept), mask, key_values.shared_prefix)


def _rows_of(layers: Layers, begin: int, lengths: Sequence[int]) -> list[Layers]:
    """Cut a right-padded batch into its rows, each from position `begin` on, without a copy."""
    return [
        [tuple(t[row : row + 1, :, begin : begin + length] for t in pair) for pair in layers]  # type: ignore[misc]
        for row, length in enumerate(lengths)
    ]


def _stack(rows: Sequence[Layers]) -> Layers:
    """Rows as one batch, padded with zeros on the right to the longest of them."""
    return [tuple(_stack_padded(tensors) for tensors in zip(*pairs, strict=True)) for pairs in zip(*rows, strict=True)]  # type: ignore[misc]


def _stack_padded(tensors: Sequence[Tensor]) -> Tensor:
    first, width = tensors[0], max(t.shape[2] for t in tensors)
    batch = first.new_zeros(len(tensors), first.shape[1], width, first.shape[3])
    for row, tensor in enumerate(tensors):
        batch[row, :, : tensor.shape[2]] = tensor[0]
    return batch


def _concatenate(before: Layers, after: Layers) -> Layers:
    if not before:
        return after
    return [
        (torch.cat([k, more_k], dim=2), torch.cat([v, more_v], dim=2))
        for (k, v), (more_k, more_v) in zip(before, after, strict=True)
    ]
