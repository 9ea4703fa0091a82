"""vLLM in this process instead of our own decoding: whole conversations go to it as embeddings, prompt included.

It comes with the extra `embedgrad[vllm]` and is imported when a run has been prepared.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import StringIO
from typing import Any, Self

import torch
from tqdm import tqdm

from embedgrad_cli.config.schema import ModelConfig
from embedgrad_cli.core.model.language_model import LanguageModel
from embedgrad_cli.core.model.unpacked_gguf import place_of
from embedgrad_cli.core.passes.ending import GeneratedAnswer
from embedgrad_cli.core.passes.engine import Engine
from embedgrad_cli.core.passes.engine_check import check_greedy
from embedgrad_cli.core.passes.forward import Forward
from embedgrad_cli.core.passes.sampling import Sampling
from embedgrad_cli.core.passes.scoring import GREEDY, Decoder
from embedgrad_cli.core.prompt.soft_prompt import SoftPrompt
from embedgrad_cli.core.text.marked_tokens import Example
from embedgrad_cli.core.text.stop_strings import StopStrings
from embedgrad_cli.errors import EngineError, ModelError, first_line
from embedgrad_cli.storage.engine_record import EngineRecord
from embedgrad_cli.storage.interrupts import stop_if_asked

log = logging.getLogger(__name__)

# Beside training, on a device that both have: the engine's share, and its weights in the computer's memory meanwhile.
SHARED_DEVICE = {"enable_sleep_mode": True, "gpu_memory_utilization": 0.5}


class VllmEngine(Engine):
    """A model in vLLM. `LanguageModel` stays beside it: it embeds, and vLLM begins with the embeddings.

    vLLM starts with the first answer, in a process of its own. The first greedy answers are compared with the network
    here (`check_greedy`).

    Args:
        config: where the model is; of it only the path, the revision and the right to run its code are read.
        length: tokens of the longest conversation with its answer; for a longer one vLLM starts again.
        arguments: further ones of `vllm.LLM`.
        shares_device: training has the device in between, so the engine sleeps then, where it can.

    Raises:
        ModelError: vLLM does not know the model.
    """

    def __init__(
        self,
        model: LanguageModel,
        config: ModelConfig,
        length: int,
        arguments: Mapping[str, Any],
        shares_device: bool = False,
    ) -> None:
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")  # its lines would run through the display's
        import vllm

        self._model, self._config, self._length = model, config, length
        self._on_gpu = model.device.type == "cuda"
        self._arguments = {**(SHARED_DEVICE if shares_device and self._on_gpu else {}), **arguments}
        self._llm: Any = None
        self._is_asleep, self._is_checked = False, False
        self.record: EngineRecord = EngineRecord(name="vllm", version=vllm.__version__)
        known, asked = vllm.ModelRegistry.get_supported_archs(), model.network.config.architectures or []
        if asked and not set(asked) & set(known):
            raise ModelError(
                f"engine=vllm: {config.path} is a {asked[0]}, which vLLM {vllm.__version__} does not know. Leave "
                "engine out; embedgrad's own decoding takes every model that it trains."
            )

    def decoder(self, forward: Forward, prompt: SoftPrompt) -> Decoder:
        return VllmDecoder(self, forward, prompt)

    def generate(self, embeds: Sequence[torch.Tensor], sampling: Sequence[Any], max_new_tokens: int) -> list[Any]:
        """What `vllm.LLM.generate` gives for conversations `[length, hidden_size]` on the CPU.

        Raises:
            EngineError: vLLM did not start, or has ended.
            StopAsked: before vLLM began, or between two answers.
        """
        with _named():
            self._wake(max(map(len, embeds)) + max_new_tokens)
            stop_if_asked()
            conversations = [{"prompt_embeds": one} for one in embeds]
            return self._llm.generate(conversations, list(sampling), use_tqdm=_SafePoint)

    def rest(self) -> None:
        if self._llm is not None and not self._is_asleep and self._arguments.get("enable_sleep_mode"):
            with _named():
                self._llm.sleep(level=1)  # the weights go to the computer's memory, the cache is given back
            self._is_asleep = True

    def check_once(self, forward: Forward, prompt: SoftPrompt, examples: Sequence[Example], answers: list[Any]) -> None:
        """`check_greedy` with the engine's first answers."""
        if not self._is_checked:
            self._is_checked = True
            check_greedy("vllm", forward, prompt, examples, [answer.outputs[0].token_ids for answer in answers])

    @contextmanager
    def running(self) -> Iterator[Self]:
        try:
            yield self
        finally:
            self._end()

    def _wake(self, length: int) -> None:
        """Have an engine that takes conversations of this length."""
        if self._on_gpu and (self._llm is None or self._is_asleep):
            torch.cuda.empty_cache()  # what training has left is counted as taken otherwise
        if length > self._length:
            log.info("vLLM starts for conversations of up to %d tokens, the answer included", length)
            self._end()
            self._length = length + length // 4  # others of the kind may be longer still
        if self._llm is None:
            self._llm = self._started()
        elif self._is_asleep:
            self._llm.wake_up()
        self._is_asleep = False

    def _started(self) -> Any:
        from vllm import LLM

        settings = {"max_model_len": min(self._length, self._model.max_length or self._length), **self._arguments}
        began = time.monotonic()
        llm = LLM(
            place_of(self._config.path),
            revision=self._model.revision,
            trust_remote_code=self._config.trust_remote_code,
            dtype=self._model.dtype_name,
            enable_prompt_embeds=True,
            # Prefixes are known by their token ids, which embeddings have none of (vllm#56655).
            enable_prefix_caching=False,
            **settings,
        )
        log.info("vLLM %s started in %.1f seconds", self.record.version, time.monotonic() - began)
        return llm

    def _end(self) -> None:
        if self._llm is not None:
            engine, self._llm, self._is_asleep = self._llm, None, False
            engine.llm_engine.engine_core.shutdown()


@contextmanager
def _named() -> Iterator[None]:
    """Within it, what vLLM raises is called vLLM's; what a stop that was asked for has ended is a stop."""
    try:
        yield
    except Exception as error:
        stop_if_asked()  # Ctrl-C in a terminal ends the engine's process too
        said = first_line(error).rstrip(".")
        raise EngineError(
            f"engine=vllm: vLLM ended with {type(error).__name__}: {said}. What its process says of the cause stands "
            "above. Where memory ran out, give another share of a GPU (engine_args={gpu_memory_utilization: 0.4}) "
            "or of a CPU's memory (VLLM_CPU_KVCACHE_SPACE in the environment, in GiB). What was done is kept, and the "
            "same command with the same output_dir goes on from there."
        ) from error


class _SafePoint(tqdm):
    """In the place of vLLM's progress bar: a stop that was asked for takes effect as soon as an answer is there."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **{**more, "file": StringIO()})

    def update(self, n: float | None = 1) -> bool | None:
        stop_if_asked()
        return super().update(n)


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
        outputs = self.engine.generate(embeds, settings, max_new_tokens)
        if sampling.is_greedy:
            self.engine.check_once(self.forward, self.prompt, examples, outputs)
        return [[_answer(list(one.token_ids), ends, stops) for one in output.outputs] for output in outputs]


def _answer(ids: list[int], ends: set[int], stops: StopStrings) -> GeneratedAnswer:
    if ids and ids[-1] in ends:
        return GeneratedAnswer.of(ids[:-1], "end_of_turn", stops)
    return GeneratedAnswer.of(ids, "limit", stops)
