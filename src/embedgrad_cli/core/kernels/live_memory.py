"""What a computation would hold in memory, found out by running it on PyTorch's meta device, which computes nothing.

Every tensor that a program makes there has its shape and no content, so the program's own code says what it keeps for
its backward pass, what it gives back, and how much it holds at most. What kernels use inside themselves is not seen.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar, Token
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from embedgrad_cli.core.kernels.memory import storage_key

LOGITS, OTHER = "logits", "other"
_stands_for: ContextVar[str] = ContextVar("_stands_for", default="meta")
_attend = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu


def device_type_of(tensor: Tensor) -> str:
    """Where a tensor is; within `LiveMemory`, where one on the meta device would be."""
    return _stands_for.get() if tensor.is_meta else tensor.device.type


class LiveMemory(TorchDispatchMode):
    """Within it, counts the bytes of all tensors on the network's device that were made since, by what they are for.

    That is the meta device. On another one the computation runs, with the same count.

    `live` are the bytes held now, by label; `at_peak` those at the moment when most were held in all.

    Args:
        network: its own weights are not counted, and tensors as wide as its vocabulary are `LOGITS`.
        device_type: where a network on the meta device would run; some ways of computing depend on that.
    """

    _token: Token[str]

    def __init__(self, network: Any, device_type: str) -> None:
        super().__init__()
        self._device_type, self._network = device_type, network  # which lives on, so that no tensor takes its place
        self.live, self.at_peak, self.label = Counter[str](), Counter[str](), OTHER
        head = network.get_output_embeddings().weight
        self._vocabulary, self._where = head.shape[0], head.device
        self._known = {storage_key(tensor): 0 for tensor in (*network.parameters(), *network.buffers())}
        self._attention = _fused_attention()

    @property
    def now(self) -> int:
        return self.live.total()

    @property
    def peak(self) -> int:
        return self.at_peak.total()

    @contextmanager
    def labelled(self, label: str) -> Iterator[None]:
        """Within it, what is made is made for this."""
        before, self.label = self.label, label
        try:
            yield
        finally:
            self.label = before

    def __enter__(self) -> LiveMemory:
        self._token = _stands_for.set(self._device_type)
        self._attention.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._attention.__exit__(*error)
        _stands_for.reset(self._token)

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if function is torch.ops.aten._local_scalar_dense.default and args[0].is_meta and args[0].dtype == torch.bool:
            return False  # whether a mask is True everywhere, say, is not known: nothing is left out because it were
        output = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(output):
            if isinstance(tensor, Tensor) and tensor.device == self._where:
                self._count(tensor)
        return output

    def _count(self, tensor: Tensor) -> None:
        key = storage_key(tensor)
        if key in self._known:  # a view, or the same tensor
            return
        storage = tensor.untyped_storage()
        size = self._known[key] = storage.nbytes()
        label = LOGITS if tensor.dim() and tensor.shape[-1] == self._vocabulary else self.label
        weakref.finalize(storage, self._freed, key, label, size).atexit = False
        self.live[label] += size
        if self.now > self.peak:
            self.at_peak = self.live.copy()

    def _freed(self, key: int, label: str, size: int) -> None:
        del self._known[key]
        self.live[label] -= size


@contextmanager
def _fused_attention() -> Iterator[None]:
    """Within it, attention on the meta device is as PyTorch's fused kernels do it: without a matrix of scores.

    As theirs, its backward pass needs queries, keys, values, the output, its normalisers and the mask as numbers.
    PyTorch's modes would not reach layers that run again in a backward pass, so its function is put in its place.
    """
    usual = nn.functional.scaled_dot_product_attention

    def attention(query: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return (_attention if query.is_meta else usual)(query, *args, **kwargs)

    nn.functional.scaled_dot_product_attention = attention
    try:
        yield
    finally:
        nn.functional.scaled_dot_product_attention = usual


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        attn_mask = torch.zeros_like(attn_mask, dtype=query.dtype)
    output: Tensor = _attend(query, key, value, 0.0, is_causal, attn_mask=attn_mask, scale=scale)[0]
    return output
