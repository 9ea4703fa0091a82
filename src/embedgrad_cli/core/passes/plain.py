"""Losses, scores and answers from whole sequences, as any other tool computes them.

What a model gets whose cache cannot carry gradient, and what the tests take as the reference.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import StoppingCriteriaList

from embedgrad_cli.core.kernels.packed_batch import PackedBatch
from embedgrad_cli.core.model.language_model import LanguageModel
from embedgrad_cli.core.passes.ending import GeneratedAnswer
from embedgrad_cli.core.passes.sampling import Sampling
from embedgrad_cli.core.prompt.soft_prompt import SoftPrompt
from embedgrad_cli.core.text.encoding import Example
from embedgrad_cli.core.text.stop_strings import StopStrings
from embedgrad_cli.storage.interrupts import stop_if_asked


def plain_losses(model: LanguageModel, batch: Sequence[Example], prompt: SoftPrompt) -> Tensor:
    """Negative log-likelihood of every target token, example by example: `[total target length]`, float32."""
    whole = PackedBatch.of([[*example.tokens, *example.target] for example in batch], model.device)
    embeds = prompt.embed(whole.padded_tokens, model)
    logits = model.network(inputs_embeds=embeds, attention_mask=whole.mask.long(), use_cache=False).logits
    losses = []
    for row, example in enumerate(batch):
        first = len(example.tokens) - 1
        targets = torch.tensor(example.target, device=logits.device)
        predictions = logits[row, first : first + len(targets)].float()
        losses.append(cross_entropy(predictions, targets, reduction="none"))
    return torch.cat(losses)


def plain_scores(
    model: LanguageModel, example: Example, choices: Sequence[tuple[int, ...]], prompt: SoftPrompt
) -> list[float]:
    """Log-likelihood of every choice, the sum over its tokens."""
    stop_if_asked()
    return [-plain_losses(model, [replace(example, target=choice)], prompt).sum().item() for choice in choices]


def plain_answers(
    model: LanguageModel,
    example: Example,
    prompt: SoftPrompt,
    max_new_tokens: int,
    sampling: Sampling,
    stops: StopStrings,
) -> list[GeneratedAnswer]:
    """Let the model generate by itself, one answer at a time: nothing is known of its cache, padding included."""
    query, answers = PackedBatch.of([example.tokens], model.device), []
    drawing = {"do_sample": True, "temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0}
    for number in range(sampling.num_samples):
        with torch.random.fork_rng():
            torch.manual_seed(sampling.seed_of(example.id, number))
            output = model.network.generate(
                inputs_embeds=prompt.embed(query.padded_tokens, model),
                attention_mask=query.mask.long(),
                max_new_tokens=max_new_tokens,
                eos_token_id=sorted(model.end_ids),
                pad_token_id=min(model.end_ids),
                stopping_criteria=StoppingCriteriaList([_after_each_token(stops)]),
                **({"do_sample": False} if sampling.is_greedy else drawing),
            )
        answer = output[0].tolist()
        end = next((i for i, token in enumerate(answer) if token in model.end_ids), None)
        answers.append(GeneratedAnswer.of(answer[:end], "limit" if end is None else "end_of_turn", stops))
    return answers


def _after_each_token(stops: StopStrings) -> Callable[[Tensor, Tensor], Tensor]:
    """A safe point, and whether the one answer has come to a stop string: `[1]`."""

    def has_ended(ids: Tensor, scores: Tensor) -> Tensor:
        stop_if_asked()
        return torch.tensor([stops.ends(ids[0].tolist())], device=ids.device)

    return has_ended
