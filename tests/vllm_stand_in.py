"""A module in the place of vLLM, which takes what embedgrad gives it and decodes greedily, token by token."""

from __future__ import annotations

import sys
from collections.abc import Callable
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


class ModelRegistry:
    """Of the architectures that `known` names."""

    known: list[str]

    @classmethod
    def get_supported_archs(cls) -> list[str]:
        return cls.known


class LLM:
    """As `vllm.LLM` to those who ask it; `made` are all of them.

    `dies_at` is the number of the request with which all of them fail. `calls` are what each was asked to do: to
    generate so many answers, to sleep, to wake up.
    """

    made: list[LLM]
    dies_at: int | None
    changes: Callable[[torch.Tensor], torch.Tensor]

    def __init__(self, model: str, **arguments: Any) -> None:
        from transformers import AutoModelForCausalLM

        self.arguments, self.llm_engine, self.calls = arguments, Engine(), list[int | str]()
        self._network: Any = AutoModelForCausalLM.from_pretrained(model, dtype="float32")
        LLM.made.append(self)

    @property
    def asked(self) -> int:
        return sum(call for call in self.calls if isinstance(call, int))

    def sleep(self, level: int) -> None:
        assert level == 1
        assert self.calls[-1:] != ["sleep"]
        self.calls.append("sleep")

    def wake_up(self) -> None:
        assert self.calls[-1:] == ["sleep"]
        self.calls.append("wake")

    @torch.no_grad()
    def generate(
        self, prompts: list[dict[str, torch.Tensor]], sampling: list[SamplingParams], use_tqdm: Callable[..., Any]
    ) -> list[Output]:
        assert self.llm_engine.engine_core.is_running
        assert self.calls[-1:] != ["sleep"]
        self.calls.append(len(prompts))
        outputs, progress = [], use_tqdm(total=len(prompts), desc="Processed prompts")
        for one, how in zip(use_tqdm(prompts, desc="Rendering prompts"), sampling, strict=True):
            assert len(one["prompt_embeds"]) + how.max_tokens <= self.arguments["max_model_len"]
            if sum(len(llm.calls) for llm in LLM.made) == LLM.dies_at:
                raise RuntimeError("EngineCore encountered an issue")
            outputs.append(Output([Answer(self._answer(one["prompt_embeds"], how)) for _ in range(how.n)]))
            progress.update(how.n)
        assert progress.format_dict["elapsed"] > 0
        progress.close()
        return outputs

    def _answer(self, embeds: torch.Tensor, how: SamplingParams) -> list[int]:
        ids: list[int] = []
        while len(ids) < how.max_tokens and not (ids and ids[-1] in how.stop_token_ids):
            logits = LLM.changes(self._network(inputs_embeds=embeds[None]).logits[0, -1])
            ids.append(int(logits.argmax()))
            embeds = torch.cat([embeds, self._network.get_input_embeddings()(torch.tensor(ids[-1:]))])
        return ids


def stand_in(patch: pytest.MonkeyPatch) -> list[LLM]:
    """Put it in vLLM's place. Returns: the engines that will have been made."""
    module: Any = ModuleType("vllm")
    module.LLM, module.SamplingParams, module.ModelRegistry = LLM, SamplingParams, ModelRegistry
    module.__version__ = "0.0.0"
    LLM.made, LLM.dies_at, LLM.changes = [], None, staticmethod(lambda logits: logits)
    ModelRegistry.known = ["Qwen2ForCausalLM", "LlamaForCausalLM"]
    patch.setitem(sys.modules, "vllm", module)
    return LLM.made
