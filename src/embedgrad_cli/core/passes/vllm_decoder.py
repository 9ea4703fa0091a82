"""vLLM in this process instead of our own decoding: whole conversations go to it as embeddings, prompt included.

It comes with the extra `embedgrad[vllm]` and is imported when the first answer is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import torch

from embedgrad_cli.config.schema import ModelConfig
from embedgrad_cli.core.model.language_model import LanguageModel
from embedgrad_cli.core.model.unpacked_gguf import place_of
from embedgrad_cli.core.passes.ending import GeneratedAnswer
from embedgrad_cli.core.passes.forward import Forward
from embedgrad_cli.core.passes.sampling import Sampling
from embedgrad_cli.core.passes.scoring import GREEDY, Decoder
from embedgrad_cli.core.prompt.soft_prompt import SoftPrompt
from embedgrad_cli.core.text.encoding import Example
from embedgrad_cli.core.text.stop_strings import StopStrings


class VllmEngine:
    """A model in vLLM. `LanguageModel` stays beside it: it embeds, and vLLM begins with the embeddings.

    Args:
        config: where the model is; of it only the path, the revision and the right to run its code are read.
        length: tokens of the longest conversation with its answer.
        arguments: further ones of `vllm.LLM`.
    """

    def __init__(self, model: LanguageModel, config: ModelConfig, length: int, arguments: Mapping[str, Any]) -> None:
        self._model, self._config, self._length, self._arguments = model, config, length, arguments

    @cached_property
    def _llm(self) -> Any:
        from vllm import LLM

        settings = {"max_model_len": min(self._length, self._model.max_length or self._length), **self._arguments}
        return LLM(
            place_of(self._config.path),
            revision=self._model.revision,
            trust_remote_code=self._config.trust_remote_code,
            dtype=self._model.dtype_name,
            enable_prompt_embeds=True,
            # Prefixes are known by their token ids, which embeddings have none of (vllm#56655).
            enable_prefix_caching=False,
            **settings,
        )

    def generate(self, embeds: Sequence[torch.Tensor], sampling: Sequence[Any]) -> list[Any]:
        """What `vllm.LLM.generate` gives for conversations `[length, hidden_size]` on the CPU."""
        return self._llm.generate([{"prompt_embeds": one} for one in embeds], list(sampling), use_tqdm=False)

    @contextmanager
    def running(self) -> Iterator[VllmEngine]:
        """Within it vLLM may be there; afterwards its processes are gone."""
        try:
            yield self
        finally:
            if "_llm" in self.__dict__:
                self.__dict__.pop("_llm").llm_engine.engine_core.shutdown()


class VllmDecoder(Decoder):
    """Generates answers by vLLM; scores, where they are asked for, are our own."""

    def __init__(self, engine: VllmEngine, forward: Forward, prompt: SoftPrompt) -> None:
        super().__init__(forward, prompt)
        self.engine = engine

    @torch.no_grad()
    def generate(
        self,
        examples: Sequence[Example],
        max_new_tokens: int,
        at_once: int,
        sampling: Sampling = GREEDY,
        stop: Sequence[str] = (),
    ) -> list[list[GeneratedAnswer]]:
        """As `Decoder.generate`; how many grow at once is vLLM's to say, and draws are its own."""
        from vllm import SamplingParams

        model = self.forward.model
        ends = model.end_ids
        stops = StopStrings(tuple(stop), model.tokenizer)
        embeds = [
            self.prompt.embed(torch.tensor([example.tokens], device=model.device), model)[0].cpu()
            for example in examples
        ]
        settings = [
            SamplingParams(
                n=sampling.num_samples,
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                seed=None if sampling.is_greedy else sampling.seed_of(example.id, 0),
                repetition_penalty=1.0,  # else vLLM takes the one in the model's generation_config.json
                max_tokens=max_new_tokens,
                stop=list(stop),
                ignore_eos=True,  # an answer ends where evaluation ends it, and nowhere else
                stop_token_ids=sorted(ends),
            )
            for example in examples
        ]
        outputs = self.engine.generate(embeds, settings)
        return [[_answer(list(one.token_ids), ends, stops) for one in output.outputs] for output in outputs]


def _answer(ids: list[int], ends: set[int], stops: StopStrings) -> GeneratedAnswer:
    if ids and ids[-1] in ends:
        return GeneratedAnswer.of(ids[:-1], "end_of_turn", stops)
    return GeneratedAnswer.of(ids, "limit", stops)
