"""The best text prompt that a short search finds: one token swapped at a time, chosen by gradient.

The gradient of the loss for the prompt's embeddings says, to first order, how much the loss changes when a token is
swapped for another (HotFlip, arXiv 1712.06751; AutoPrompt, arXiv 2010.15980). As in GCG (arXiv 2307.15043) every step
draws some swaps among the most promising ones of all places, computes their loss, and takes the best. Ours: a swap is
taken only if it lowers the loss of the step's rows; a candidate must be a text that reads back as the same tokens; the
search begins with the seed's text or the nearest-token reading, whichever is better; and validation rows select the
text, never the rows that the swaps were chosen on.

The budget counts forward evaluations, one prompt on one row. A loss is one, a gradient two (its backward pass costs
about as much again), a validation two (the answer and the loss).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from embedgrad_cli.config.schema import SearchConfig
from embedgrad_cli.core.model.nearest_tokens import best_tokens
from embedgrad_cli.core.passes.batching import training_batches
from embedgrad_cli.core.passes.forward import Forward
from embedgrad_cli.core.passes.sampling import seeded
from embedgrad_cli.core.prompt.nearest_text import texts_of, unwritable
from embedgrad_cli.core.prompt.soft_prompt import SoftPrompt
from embedgrad_cli.core.text.encoding import Encoded
from embedgrad_cli.core.text.marked_tokens import Example, Slots, tokenise
from embedgrad_cli.core.text.template import PromptTemplate
from embedgrad_cli.errors import TemplateError, UserError
from embedgrad_cli.evaluation.arms import ArmPrompt
from embedgrad_cli.evaluation.validation import answer_and_grade
from embedgrad_cli.exports.text_search.workbench import Measurement, Texts
from embedgrad_cli.storage.record import Record

ROUND_TRIP_ROWS = 4  # training rows in which a candidate must read back as itself


@dataclass(frozen=True, kw_only=True)
class TriedText(Record):
    """A validation of the search: what the texts in the slots are worth after so many steps and evaluations."""

    step: int
    evaluations: int
    accuracy: float
    loss: float
    texts: Texts

    @property
    def rank(self) -> tuple[float, float]:
        """Larger is better: more accurate, or as accurate with a smaller loss."""
        return self.accuracy, -self.loss


@dataclass
class SearchResult(Record):
    """The text that validation selected, where the search began, and every validation on the way."""

    texts: Texts
    start: str
    steps: int = 0
    evaluations: int = 0
    history: list[TriedText] = field(default_factory=list)


class TextSearch:
    """One search. The number of tokens stays that of the text it begins with.

    Args:
        measurement: the task and the model.
        config: how far and how wide.
        seed: of the rows' order and of the swaps drawn; the same seed gives the same text.
        report: is called with each validation.
    """

    def __init__(
        self,
        measurement: Measurement,
        config: SearchConfig,
        seed: int,
        report: Callable[[TriedText], None] = lambda tried: None,
    ) -> None:
        self.task, self.config, self.seed, self.report = measurement, config, seed, report
        self.model = measurement.model
        self.generator = seeded(seed)
        self.forbidden = unwritable(self.model)
        self.evaluations = 0

    def run(self, starts: dict[str, Texts]) -> SearchResult:
        """Search from the best of some texts, by name, until the budget is spent.

        Raises:
            UserError: the budget is too small for one step.
            TemplateError: a start's tokens differ between rows.
        """
        self._check_budget(len(starts))
        results = {name: SearchResult(texts, name) for name, texts in starts.items()}
        for result in results.values():
            self._validate(result, result.texts)
        result = max(results.values(), key=lambda result: result.history[0].rank)
        result.history = [begun.history[0] for begun in results.values()]
        encoded = self.task.encode(self.task.splits.train, result.texts)
        ids, texts, changed = encoded.slots.flat_ids, result.texts, False
        batches = training_batches(encoded.examples, self.config.batch_size, self.seed, 0)
        while self.evaluations + self._step_cost + self._validation_cost <= self.config.budget:
            better = self._step(next(batches), encoded, ids)
            result.steps += 1
            if better is not None:
                ids, texts = better
                changed = True
            if changed and result.steps % self.config.eval_every == 0:
                self._validate(result, texts)
                changed = False
        if changed:
            self._validate(result, texts)
        result.evaluations = self.evaluations
        return result

    def _step(self, batch: list[Example], encoded: Encoded, ids: list[int]) -> tuple[list[int], Texts] | None:
        """The swap that lowers the loss of a batch the most, as token ids and texts; None if none does."""
        forward = Forward(self.model, encoded.examples, self.task.shares_trunk)
        prompt = self._embed(ids, encoded.slots)
        best_loss, best = forward.accumulate_gradient(batch, prompt).item(), None
        self.evaluations += 2 * len(batch)
        candidates = self._readable(self._draw(prompt, ids), encoded)
        for candidate, texts in candidates:
            loss = forward.mean_loss(batch, self._embed(candidate, encoded.slots), len(batch))
            if loss < best_loss:
                best_loss, best = loss, (candidate, texts)
        self.evaluations += len(batch) * len(candidates)
        return best

    def _draw(self, prompt: SoftPrompt, ids: list[int]) -> list[list[int]]:
        """Different prompts that are one swap away, the swap being one of the `top_k` of its place by gradient."""
        gradient = prompt.vectors.grad
        assert gradient is not None
        proposals, _ = best_tokens(
            lambda rows: -(gradient @ rows.T), self.model.embedding_table(), self.config.top_k, self.forbidden
        )
        drawn: dict[tuple[int, ...], None] = {}
        for _ in range(self.config.candidates):
            place = int(torch.randint(len(ids), (), generator=self.generator))
            rank = int(torch.randint(proposals.shape[1], (), generator=self.generator))
            drawn[(*ids[:place], int(proposals[place, rank]), *ids[place + 1 :])] = None
        return [list(candidate) for candidate in drawn if list(candidate) != ids]

    def _readable(self, candidates: list[list[int]], encoded: Encoded) -> list[tuple[list[int], Texts]]:
        """The candidates whose text reads back as the same tokens, within the rendered template."""
        kept = []
        for ids in candidates:
            texts = texts_of(ids, encoded.slots, self.model.tokenizer)
            if all(texts) and self._reads_back(ids, texts, encoded):
                kept.append((ids, texts))
        return kept

    def _reads_back(self, ids: list[int], texts: Texts, encoded: Encoded) -> bool:
        rows = self.task.splits.train[:ROUND_TRIP_ROWS]
        try:
            prompt_template = PromptTemplate(self.task.template, texts, self.model.tokenizer, self.model.is_chat)
            rendered = [prompt_template.render(row.query) for row in rows]
        except TemplateError:  # the chat template rewrites such a text
            return False
        known = {example.id: example.tokens for example in encoded.examples}
        tokenised = tokenise(rendered, self.model.tokenizer, prompt_template.adds_special_tokens)
        return all(
            slots.flat_ids == ids and tokens == known.get(row.id, tokens)
            for row, (tokens, slots) in zip(rows, tokenised, strict=True)
        )

    def _validate(self, result: SearchResult, texts: Texts) -> None:
        """Measure a text on the validation rows; the result takes it if it is the best so far."""
        rows, size = self.task.splits.validation, self.task.config.evaluation.batch_size
        encoded = self.task.encode(rows, texts)
        prompt = SoftPrompt.from_seed(encoded.slots, self.model)
        forward = Forward(self.model, encoded.examples, self.task.shares_trunk)
        arm_set = self.task.build_arms(rows, {"validation": ArmPrompt(tuple(texts))})
        outcomes = answer_and_grade(arm_set.arms["validation"], arm_set.rows, self.task.config.task, size)
        self.evaluations += self._validation_cost
        tried = TriedText(
            step=result.steps,
            evaluations=self.evaluations,
            accuracy=sum(outcome.correct for outcome in outcomes) / len(outcomes),
            loss=forward.mean_loss(encoded.examples, prompt, size),
            texts=texts,
        )
        if all(tried.rank > earlier.rank for earlier in result.history):
            result.texts = texts
        result.history.append(tried)
        self.report(tried)

    def _embed(self, ids: list[int], slots: Slots) -> SoftPrompt:
        """The text's embeddings in the slots. Only vectors differ between candidates, never the examples."""
        parts = torch.tensor(ids).split([len(slot) for slot in slots.ids])
        return SoftPrompt.from_seed(Slots(tuple(tuple(part.tolist()) for part in parts)), self.model)

    @property
    def _step_cost(self) -> int:
        """At most."""
        return (2 + self.config.candidates) * self.config.batch_size

    @property
    def _validation_cost(self) -> int:
        return 2 * len(self.task.splits.validation)

    def _check_budget(self, starts: int) -> None:
        needed = (starts + 1) * self._validation_cost + self._step_cost
        if self.config.budget < needed:
            raise UserError(
                f"search.budget={self.config.budget} is too small: {starts} text(s) to begin with, one step and its "
                f"validation take {needed} forward evaluations. Give search.budget={10 * needed}, or smaller "
                "search.candidates and search.batch_size. Nothing was written."
            )
