"""A module in the place of vLLM, which takes what embedgrad gives it and decodes greedily, token by token."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import pytest
import torch


@dataclass
class SamplingParams:
    n: int
    temperature: float
    top_p: float
    seed: int | None
    repetition_penalty: float
    max_tokens: int
    stop: list[str]
    ignore_eos: bool
    stop_token_ids: list[int]


@dataclass
class Answer:
    token_ids: list[int]


@dataclass
class Output:
    outputs: list[Answer]


@dataclass
class Core:
    is_running: bool = True

    def shutdown(self) -> None:
        self.is_running = False


@dataclass
class Engine:
    engine_core: Core = field(default_factory=Core)


class LLM:
    """As `vllm.LLM` to those who ask it; `made` are all of them."""

    made: list[LLM]

    def __init__(self, model: str, **arguments: Any) -> None:
        from transformers import AutoModelForCausalLM

        self.arguments, self.llm_engine, self.asked = arguments, Engine(), 0
        self._network: Any = AutoModelForCausalLM.from_pretrained(model, dtype="float32")
        LLM.made.append(self)

    @torch.no_grad()
    def generate(
        self, prompts: list[dict[str, torch.Tensor]], sampling: list[SamplingParams], use_tqdm: bool
    ) -> list[Output]:
        self.asked += len(prompts)
        return [
            Output([Answer(self._answer(one["prompt_embeds"], how)) for _ in range(how.n)])
            for one, how in zip(prompts, sampling, strict=True)
        ]

    def _answer(self, embeds: torch.Tensor, how: SamplingParams) -> list[int]:
        ids: list[int] = []
        while len(ids) < how.max_tokens and not (ids and ids[-1] in how.stop_token_ids):
            logits = self._network(inputs_embeds=embeds[None]).logits[0, -1]
            ids.append(int(logits.argmax()))
            embeds = torch.cat([embeds, self._network.get_input_embeddings()(torch.tensor(ids[-1:]))])
        return ids


def stand_in(patch: pytest.MonkeyPatch) -> list[LLM]:
    """Put it in vLLM's place. Returns: the engines that will have been made."""
    module: Any = ModuleType("vllm")
    module.LLM, module.SamplingParams, LLM.made = LLM, SamplingParams, []
    patch.setitem(sys.modules, "vllm", module)
    return LLM.made
