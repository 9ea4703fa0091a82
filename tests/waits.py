"""Counts what makes a program wait for a GPU: on a CPU, by the operators that hand a tensor's content to the host."""

from __future__ import annotations

import traceback
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
TO_HOST = {
    aten._local_scalar_dense.default,
    aten.nonzero.default,
    aten.masked_select.default,
    aten.equal.default,
    aten.repeat_interleave.Tensor,
    aten._unique2.default,
}


HANDED_OVER = {Tensor.tolist, Tensor.cpu, Tensor.numpy}


class Waits(TorchDispatchMode):
    """Within it, `seen` are the places in embedgrad's code where the host needs a tensor's content.

    Args: on_host: tensors that would be on the host beside a GPU too.
    """

    def __init__(self, on_host: Collection[Tensor] = ()) -> None:
        super().__init__()
        self.seen, self._on_host = list[str](), {id(tensor) for tensor in on_host}
        self._functions = _Functions(self)

    def __enter__(self) -> Waits:
        self._functions.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._functions.__exit__(*error)

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        by_mask = function is aten.index.Tensor and any(i is not None and i.dtype == torch.bool for i in args[1])
        if (function in TO_HOST or by_mask) and id(args[0]) not in self._on_host:
            self.note(function)
        return function(*args, **(kwargs or {}))

    def note(self, function: Any) -> None:
        ours = [frame for frame in traceback.extract_stack() if "embedgrad_cli" in frame.filename]
        self.seen.append(f"{ours[-1].filename}:{ours[-1].lineno} {function}" if ours else str(function))


class _Functions(TorchFunctionMode):
    """What the dispatcher does not see, as it runs no operator where the tensor is on the host already."""

    def __init__(self, waits: Waits) -> None:
        super().__init__()
        self._waits = waits

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if function in HANDED_OVER:
            self._waits.note(function)
        return function(*args, **(kwargs or {}))
