"""The Python interface: a saved prompt in a program of your own.

prompt = embedgrad_cli.load("prompt.safetensors")
inputs = prompt.apply(model, tokenizer, [{"role": "user", "content": "How many?"}])
answer = model.generate(**inputs, **prompt.greedy(model, tokenizer), max_new_tokens=64)
"""

from __future__ import annotations

import copy
import logging
import os
import weakref
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any, overload

import torch
from torch import Tensor

from embedgrad_cli.config.fields import as_texts
from embedgrad_cli.core.kernels.packed_batch import PackedBatch
from embedgrad_cli.core.model.greedy import changes_likeliest, neutral_arguments
from embedgrad_cli.core.model.language_model import LanguageModel
from embedgrad_cli.core.model.pinned_template import pin
from embedgrad_cli.core.model.tokenizer import today
from embedgrad_cli.core.prompt.artifact import (
    check_fingerprint,
    load_artifact,
    recorded_template,
    warn_quantization,
    warn_undated,
)
from embedgrad_cli.core.text.conversation import Turns, joins_system_turn, render_turns
from embedgrad_cli.core.text.marked_tokens import tokenise, tokenise_apart
from embedgrad_cli.errors import TemplateError
from embedgrad_cli.storage.quantization import quantization_record
from embedgrad_cli.storage.record import Json

log = logging.getLogger(__name__)


class Prompt:
    """An optimised prompt, read from an artifact. Made by `embedgrad_cli.load`.

    Raises:
        ArtifactError: the file is missing, damaged, not an artifact, or of a newer format.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = str(path)
        self._artifact = load_artifact(Path(path).expanduser())
        self._template = recorded_template(self._artifact.metadata)
        self._tokenizer: Any = None  # the caller's, with the chat template of training
        self._checked: tuple[weakref.ref[Any], weakref.ref[Any]] | None = None

    def __repr__(self) -> str:
        return f"<embedgrad prompt {self._path}: {len(self.vectors)} tokens for {self._artifact.metadata.model.path}>"

    @property
    def vectors(self) -> Tensor:
        """The optimised embeddings, `[num_tokens, hidden_size]` float32 on the CPU; slots one after the other."""
        return self._artifact.prompt.vectors.detach()

    @property
    def seed_text(self) -> str | list[str]:
        """The text the prompt was started from; a list for a template with several texts."""
        return self._artifact.metadata.seed.text

    @property
    def stop_strings(self) -> list[str] | None:
        """The texts at which an answer ended in the task's evaluation (`task.stop`); None where there were none.

        For `model.generate(**inputs, stop_strings=prompt.stop_strings, tokenizer=tokenizer)`, which ends an answer
        there and leaves the text in it, and for vLLM's `SamplingParams(stop=prompt.stop_strings)`.
        """
        return self._artifact.metadata.config.task.stop or None

    @property
    def metadata(self) -> Json:
        """What the artifact says about itself: model, template, task, metrics, versions, all settings."""
        return self._artifact.metadata.to_json()

    @torch.no_grad()
    def apply(self, model: Any, tokenizer: Any, messages: Turns | Sequence[Turns]) -> dict[str, Tensor]:
        """What `model.generate` and `model.forward` take, with the prompt in its place.

        Args:
            model: the `transformers` causal language model that the prompt was made for, in any precision.
            tokenizer: the model's own.
            messages: a conversation without the prompt, `[{"role": "user", "content": …}]`, or several of them. The
                artifact's template puts the prompt in its place; the last turn is the query, see `render_turns`.

        Returns: `inputs_embeds` `[batch, width, hidden_size]` in the model's dtype and `attention_mask`
            `[batch, width]`, on the model's device. Shorter conversations are padded on the left.

        Raises:
            ArtifactError: the model is not the one that the prompt was made for.
            TemplateError: a conversation has no place for the prompt.
        """
        language_model = self._language_model(model, tokenizer)
        device = language_model.device
        batch = PackedBatch.of([self._encode(turns, language_model) for turns in _batch(messages)], device, left=True)
        embeds = self._artifact.prompt.to(device).embed(batch.padded_tokens, language_model)
        return {"inputs_embeds": embeds, "attention_mask": batch.mask.long()}

    def greedy(self, model: Any, tokenizer: Any) -> dict[str, Any]:
        """Arguments of `model.generate` with which it answers as `embedgrad evaluate` does without sampling.

        They undo what the model's `generation_config` says beside (a penalty of repetition, say), and end an answer
        where evaluation ends it. `max_new_tokens` is left to the caller.

        Raises:
            ArtifactError: the model is not the one that the prompt was made for.
        """
        ends = sorted(self._language_model(model, tokenizer).end_ids)
        arguments = neutral_arguments(model.generation_config)
        if ends:
            padding = getattr(model.generation_config, "pad_token_id", None)
            arguments |= {"eos_token_id": ends, "pad_token_id": ends[0] if padding is None else padding}
        return arguments

    @overload
    def to_vllm(self, model: Any, tokenizer: Any, messages: Turns) -> dict[str, Tensor]: ...
    @overload
    def to_vllm(self, model: Any, tokenizer: Any, messages: Sequence[Turns]) -> list[dict[str, Tensor]]: ...
    def to_vllm(
        self, model: Any, tokenizer: Any, messages: Turns | Sequence[Turns]
    ) -> dict[str, Tensor] | list[dict[str, Tensor]]:
        """What `vllm.LLM.generate` takes from an engine made with `enable_prompt_embeds=True`.

        Args: as for `apply`. Of the model only its input embeddings are computed.

        Returns: `{"prompt_embeds": tensor}` with `[length, hidden_size]` on the CPU; a list of them for several
            conversations.

        Raises: as `apply`.
        """
        inputs = self.apply(model, tokenizer, messages)
        rows = zip(inputs["inputs_embeds"].cpu(), inputs["attention_mask"].bool().cpu(), strict=True)
        requests = [{"prompt_embeds": embeds[mask].contiguous()} for embeds, mask in rows]
        return requests[0] if _is_one(messages) else requests

    def _language_model(self, model: Any, tokenizer: Any) -> LanguageModel:
        """The pair in embedgrad's own terms, itself unchanged; whether the prompt fits it is checked once."""
        kind, path = self._artifact.metadata.config.model.template, model.name_or_path or "of this program"
        is_chat = bool(tokenizer.chat_template) if kind == "auto" else kind == "chat"
        if self._checked is None or (self._checked[0]() is not model or self._checked[1]() is not tokenizer):
            told = self._told_as_in_training(tokenizer) if is_chat else tokenizer
            # A network in memory does not say which GGUF file it came from, so that is not compared.
            gguf = self._artifact.metadata.model.gguf
            packing = quantization_record(getattr(model.config, "quantization_config", None))
            language_model = LanguageModel(model, told, path, None, is_chat, gguf=gguf, quantization=packing)
            check_fingerprint(self._artifact, language_model, self._path)
            warn_quantization(self._artifact, language_model, self._path)
            _warn_of_settings(model)
            warn_undated(self._artifact, language_model, self._path)
            self._tokenizer, self._checked = told, (weakref.ref(model), weakref.ref(tokenizer))
        return LanguageModel(model, self._tokenizer, path, None, is_chat)

    def _told_as_in_training(self, tokenizer: Any) -> Any:
        """A tokenizer whose chat template has the arguments and the day of training."""
        metadata = self._artifact.metadata
        day, arguments = metadata.model.chat_template_date, metadata.config.model.chat_template_kwargs
        told = copy.copy(tokenizer)  # which shares its vocabulary
        told.chat_template = pin(tokenizer.chat_template, arguments, date.fromisoformat(day) if day else today())
        return told

    def _encode(self, turns: Turns, model: LanguageModel) -> tuple[int, ...]:
        """The conversation's tokens, those of the slots marked as in `Example.tokens`."""
        rendered = render_turns(turns, self._template, as_texts(self.seed_text), model.tokenizer, model.is_chat)
        made_for = self._artifact.prompt.slots
        if model.is_chat and joins_system_turn(turns, self._template):
            # The empty line behind the prompt may merge with its last token (".\n\n" is one in many vocabularies),
            # which no example of training did.
            apart = tokenise_apart(rendered, model.tokenizer, made_for)
            if apart is not None:
                return apart
        ((tokens, slots),) = tokenise([rendered], model.tokenizer, adds_special_tokens=not model.is_chat)
        if slots != made_for:
            raise TemplateError(
                f"in this conversation the prompt's text has the tokens {_names(slots.flat_ids, model)}, but the "
                f"vectors were made for {_names(made_for.flat_ids, model)}: a token straddles the edge of the prompt. "
                "Begin or end the turn beside it with other characters."
            )
        return tokens


def _warn_of_settings(model: Any) -> None:
    if settings := changes_likeliest(model.generation_config):
        said = ", ".join(f"{key}={value}" for key, value in settings.items())
        log.warning(
            "model.generate obeys this model's generation_config (%s), which embedgrad evaluate does not. For its "
            "answers: model.generate(**inputs, **prompt.greedy(model, tokenizer))",
            said if len(said) < 200 else ", ".join(settings),
        )


def _names(ids: list[int], model: LanguageModel) -> str:
    return str(model.tokenizer.convert_ids_to_tokens(ids))


def _is_one(messages: Turns | Sequence[Turns]) -> bool:
    return not isinstance(messages, Sequence) or not messages or not isinstance(messages[0], Sequence)


def _batch(messages: Any) -> list[Turns]:
    return [messages] if _is_one(messages) else list(messages)
