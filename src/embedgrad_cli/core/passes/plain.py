"""Losses, scores and answers from whole sequences, as any other tool computes them.

What a model gets whose cache cannot carry gradient, and what the tests take as the reference. Nothing is assumed of a
model but that it is causal: no mask, no cache, no settings of its own for generation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from embedgrad_cli.core.kernels.memory import is_out_of_memory
from embedgrad_cli.core.kernels.needed_positions import logits_only_at
from embedgrad_cli.core.kernels.packed_batch import PackedBatch
from embedgrad_cli.core.model.language_model import LanguageModel
from embedgrad_cli.core.passes.ending import GeneratedAnswer
from embedgrad_cli.core.passes.sampling import Sampling
from embedgrad_cli.core.prompt.soft_prompt import SoftPrompt
from embedgrad_cli.core.text.marked_tokens import Example
from embedgrad_cli.core.text.stop_strings import StopStrings
from embedgrad_cli.storage.interrupts import stop_if_asked

CACHES = ("past_key_values", "cache_params", "state")  # what models call that which they keep of the tokens so far
WORTH_DRAFTING = 8  # right tokens in a row; a cache that gives fewer is not asked again


def plain_losses(
    model: LanguageModel, batch: Sequence[Example], prompt: SoftPrompt, temperature: float = 1.0
) -> Tensor:
    """Negative log-likelihood of every target token, example by example: `[total target length]`, float32."""
    targets = torch.tensor([token for example in batch for token in example.target], device=model.device)
    logits = plain_target_logits(model, batch, prompt).float() / temperature
    return cross_entropy(logits, targets, reduction="none")


def plain_target_logits(model: LanguageModel, batch: Sequence[Example], prompt: SoftPrompt) -> Tensor:
    """Logits where each target token is predicted, example by example: `[total target length, vocabulary]`."""
    whole = PackedBatch.of([[*example.tokens, *example.target] for example in batch], model.device)
    embeds = prompt.embed(whole.padded_tokens, model)
    # Padding stands behind the rows, so no token sees it, and no mask is needed.
    logits = model.network(inputs_embeds=embeds, use_cache=False).logits
    firsts = [len(example.tokens) - 1 for example in batch]
    return torch.cat([logits[row, first : first + len(batch[row].target)] for row, first in enumerate(firsts)])


def plain_scores(
    model: LanguageModel, example: Example, choices: Sequence[tuple[int, ...]], prompt: SoftPrompt
) -> list[float]:
    """Log-likelihood of every choice, the sum over its tokens."""
    stop_if_asked()
    return [-plain_losses(model, [replace(example, target=choice)], prompt).sum().item() for choice in choices]


def plain_logits(model: LanguageModel, tokens: Sequence[int], positions: Sequence[int], prompt: SoftPrompt) -> Tensor:
    """Logits `[len(positions), vocabulary]` of one sequence, all of which is given to the network at once."""
    with logits_only_at(model.network, torch.tensor(positions, device=model.device)):
        embeds = prompt.embed(torch.tensor([tokens], device=model.device), model)
        return model.network(inputs_embeds=embeds, use_cache=False).logits[0]


def plain_answers(
    model: LanguageModel,
    example: Example,
    prompt: SoftPrompt,
    max_new_tokens: int,
    sampling: Sampling,
    stops: StopStrings,
) -> list[GeneratedAnswer]:
    """`sampling.num_samples` answers, one after the other, because how the model pads is not known.

    They end where those of `Generation` do.
    """
    context = model.max_length
    limit = max_new_tokens if context is None else min(max_new_tokens, context - len(example.tokens))
    random_numbers = sampling.random_numbers([example.id], max_new_tokens)
    answers = []
    for number in range(sampling.num_samples):
        drawn = None if random_numbers is None else random_numbers[number].to(model.device)
        tokens = _Answer(model, example.tokens, prompt, limit, sampling, stops, drawn).run()
        if model.end_ids.isdisjoint(tokens[-1:]):
            answers.append(GeneratedAnswer.of(tokens, "limit", stops))
        else:
            answers.append(GeneratedAnswer.of(tokens[:-1], "end_of_turn", stops))
    return answers


@dataclass
class _Answer:
    """One answer: each token is chosen from what the model makes of all before it, given at once, without a cache.

    That is a pass per token. So the model's own cache, right or not, drafts the rest of the answer, and one pass over
    the draft tells how many of its tokens would have been chosen (speculative decoding, Leviathan et al. 2023,
    arXiv:2211.17192).

    Args:
        query: the tokens before the answer, as in `Example.tokens`.
        drawn: a random number for each token of the answer; None takes the likeliest.
    """

    model: LanguageModel
    query: Sequence[int]
    prompt: SoftPrompt
    limit: int
    sampling: Sampling
    stops: StopStrings
    drawn: Tensor | None
    tokens: list[int] = field(default_factory=list)

    def run(self) -> list[int]:
        drafts = True
        while not self._is_complete(self.tokens):
            stop_if_asked()
            before = [*self.query, *self.tokens]
            self.tokens += self._choose(plain_logits(self.model, before, [len(before) - 1], self.prompt), self.tokens)
            if drafts and not self._is_complete(self.tokens):
                draft = self._draft()
                right = self._num_right(draft)
                self.tokens += draft[:right]
                drafts = right >= WORTH_DRAFTING
        return self.tokens

    def _is_complete(self, answer: Sequence[int]) -> bool:
        is_over = len(answer) >= self.limit or not self.model.end_ids.isdisjoint(answer[-1:])
        return is_over or self.stops.ends(answer)

    def _choose(self, logits: Tensor, answer: Sequence[int]) -> list[int]:
        """The tokens after this part of the answer, from logits `[n, vocabulary]`."""
        first = len(answer)
        drawn = None if self.drawn is None else self.drawn[first : first + len(logits)]
        return self.sampling.choose(logits, drawn).tolist()

    def _draft(self) -> list[int]:
        """How the answer would go on by the model's own cache; nothing where it has none that is known."""
        draft, new, cache = list[int](), [*self.query, *self.tokens], dict[str, object]()
        while not self._is_complete([*self.tokens, *draft]):
            stop_if_asked()
            last = torch.tensor([len(new) - 1], device=self.model.device)
            embeds = self.prompt.embed(torch.tensor([new], device=self.model.device), self.model)
            try:
                with logits_only_at(self.model.network, last):
                    output = self.model.network(inputs_embeds=embeds, use_cache=True, **cache)
            except Exception as error:  # a draft may fail as it likes: it decides nothing
                if is_out_of_memory(error):
                    raise
                return draft
            cache = {name: output[name] for name in CACHES if output.get(name) is not None}
            if not cache:
                return draft
            new = self._choose(output.logits[0], [*self.tokens, *draft])
            draft += new
        return draft

    def _num_right(self, draft: Sequence[int]) -> int:
        """How many tokens of a draft are those that whole passes give."""
        if not draft:
            return 0
        begin = len(self.query) + len(self.tokens) - 1
        whole = [*self.query, *self.tokens, *draft[:-1]]
        logits = plain_logits(self.model, whole, range(begin, begin + len(draft)), self.prompt)
        chosen = self._choose(logits, self.tokens)
        pairs = zip(chosen, draft, strict=True)
        return next((i for i, (whole_pass, drafted) in enumerate(pairs) if whole_pass != drafted), len(draft))
