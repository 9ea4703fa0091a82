"""How the weights of a model are quantised, as an artifact records it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from embedgrad_cli.storage.record import Record


@dataclass(frozen=True, kw_only=True)
class QuantizationRecord(Record):
    """Who packs the weights, as transformers calls it (`bitsandbytes`, `torchao`, `gptq`), and in which format."""

    method: str
    kind: str

    @property
    def name(self) -> str:
        """For people: nf4 (bitsandbytes)."""
        return f"{self.kind} ({self.method})" if self.kind else self.method


# What `model.quantization` may ask for.
QUANTIZATIONS = {
    "nf4": QuantizationRecord(method="bitsandbytes", kind="nf4"),
    "int8": QuantizationRecord(method="torchao", kind="int8"),
}
_TORCHAO = {"Int8WeightOnlyConfig": "int8", "Float8WeightOnlyConfig": "fp8"}


def quantization_record(settings: Mapping[str, Any] | Any | None) -> QuantizationRecord | None:
    """What the `quantization_config` of a model's config says, as transformers writes it; None where there is none."""
    if settings is None:
        return None
    if not isinstance(settings, Mapping):  # of a network in memory, it is an object
        settings = settings.to_dict()
    method = getattr(settings.get("quant_method"), "value", settings.get("quant_method")) or "bitsandbytes"
    if method == "bitsandbytes":
        is_8bit = settings.get("load_in_8bit") or settings.get("_load_in_8bit")
        return QuantizationRecord(method=method, kind="int8" if is_8bit else settings.get("bnb_4bit_quant_type", "fp4"))
    if method == "torchao":
        kind = str(settings.get("quant_type", {}).get("default", {}).get("_type", ""))
        return QuantizationRecord(method=method, kind=_TORCHAO.get(kind, kind))
    bits = settings.get("bits") or settings.get("w_bit") or settings.get("format") or settings.get("fmt") or ""
    return QuantizationRecord(method=str(method), kind=f"{bits} bits" if isinstance(bits, int) else str(bits))
