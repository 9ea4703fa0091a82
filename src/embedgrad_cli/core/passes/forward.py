"""The forward pass that computes each token once: training, scoring and generation all go through it.

An example is the prefix that all examples share, its trunk, and the rest, its branch (suffix). Two questions decide how
a token is computed:

|                                | before the first slot: no gradient | from the first slot on: carries gradient       |
| ------------------------------ | ---------------------------------- | ---------------------------------------------- |
| shared by all examples: trunk  | once per run                       | once per optimiser step, at batch size 1       |
| per example: branch            | once per run, no graph kept        | once per step, with graph                      |

The trunk's keys and values are cut from its graph and handed to every micro-batch of branches as leaves. Their
gradients add up over all micro-batches and go through the trunk once, at the end. So a batch may be split at no cost.
Where the examples of a batch share more than all examples do, the batch's trunk is longer. Only positions that predict
a target token reach the last layer's MLP and the vocabulary. The same schedule is known from reinforcement learning
with shared prompts (arXiv 2606.01143); it needs no kernel.

Where attention can read the trunk in place (`core.kernels.shared_prefix_attention`), rows are packed and nothing around
it is padded; elsewhere every row gets a view of the trunk in a `transformers` cache, and micro-batches hold rows of
similar length.

A model whose cache cannot carry gradient (`trunk_check`) uses the plain forward (`plain`), and so do the tests, as the
reference.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate

import torch
from torch import Tensor

from embedgrad_cli.core.kernels.float32_weights import HALF
from embedgrad_cli.core.kernels.kv_cache import KeyValues, Layers
from embedgrad_cli.core.kernels.memory import OutOfMemory, RowsThatFit, is_out_of_memory
from embedgrad_cli.core.model.language_model import LanguageModel
from embedgrad_cli.core.objectives import Gold, Labels, Objective
from embedgrad_cli.core.passes.batching import split_by_length, split_packed
from embedgrad_cli.core.passes.choice_scores import choice_scores, pad_scores
from embedgrad_cli.core.passes.network_pass import (
    extend_cache,
    hidden_states_at,
    logits_and_cache,
    logits_at,
    losses_at,
)
from embedgrad_cli.core.passes.plain import plain_losses, plain_target_logits
from embedgrad_cli.core.passes.query_cache import QueryCache
from embedgrad_cli.core.passes.token_likelihoods import States
from embedgrad_cli.core.prompt.soft_prompt import SoftPrompt
from embedgrad_cli.core.text.marked_tokens import Example, Slots, first_slot, trunk_length
from embedgrad_cli.storage.interrupts import stop_if_asked

log = logging.getLogger(__name__)

_OUT_OF_MEMORY = (
    "memory ran out with micro-batches of {size} example(s). train.micro_batch_size=auto finds the largest that fits; "
    "where one example is too much, train.checkpoint_activations=true, model.dtype=bfloat16, a smaller model or "
    "shorter rows need less."
)

# A batch's own trunk costs one more forward pass, so it must save some.
WORTH_SHARING = 8  # tokens
LOSS_SCALE = 1024.0  # of float16, to begin with
GOLD = Gold()


class Forward:
    """Runs a frozen model over examples with a soft prompt in their slots.

    What it keeps from call to call changes no result but by rounding: `frozen_trunk`, `queries`, `max_micro_batch`, the
    examples per micro-batch that are known to fit (None until memory ran out), `rows_that_fit` where no gradient is
    needed, and `loss_scale`, by which the loss is multiplied on its way back, so that float16 holds small gradients too
    (Micikevicius et al. 2018, arXiv 1710.03740); checkpoints have it.

    Args:
        model: the frozen language model.
        examples: all examples that will be run; the tokens they share are the trunk.
        shares_trunk: False computes every example in full.
        queries: keeps what examples hold before their first slot; None computes it anew in every step.
        checkpoint_activations: compute activations again in the backward pass instead of keeping them.
        objective: what `accumulate_gradient` goes down.
    """

    def __init__(
        self,
        model: LanguageModel,
        examples: Sequence[Example],
        shares_trunk: bool = True,
        queries: QueryCache | None = None,
        checkpoint_activations: bool = False,
        objective: Objective = GOLD,
    ) -> None:
        self.model, self.shares_trunk, self.queries, self.objective = model, shares_trunk, queries, objective
        self.checkpoint_activations = checkpoint_activations
        self.trunk = examples[0].tokens[: trunk_length(examples)] if shares_trunk and examples else ()
        self.max_micro_batch: int | None = None
        self.rows_that_fit = RowsThatFit(may_halve=not model.is_divided)
        self.loss_scale = LOSS_SCALE if model.dtype == torch.float16 else 1.0

    def accumulate_gradient(
        self,
        batch: Sequence[Example],
        prompt: SoftPrompt,
        micro_batch_size: int | None = None,
        num_terms: int | None = None,
    ) -> Tensor:
        """Add the gradient of the batch's loss, see `core.objectives`, to the prompt's.

        Args:
            micro_batch_size: examples per forward pass at most; None decides by length, and takes half of it
                whenever memory runs out, with the same gradient.
            num_terms: of the batch that these rows are a part of; None: they are the batch.

        Returns: the loss, a scalar without graph.
        Raises:
            OutOfMemory: not even one example fits.
        """
        before, prompt.vectors.grad = prompt.vectors.grad, None
        while True:
            size = micro_batch_size or self.max_micro_batch
            try:
                loss = self._accumulate(batch, prompt, size, num_terms or self.objective.num_terms(batch))
                break
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) or self.model.is_divided:  # the others have not come to this
                    raise
            # Out here the error and with it the tensors of the failed pass are gone.
            if self.queries is not None and self.queries.give_back():
                log.warning("memory ran out: queries are not kept across epochs any longer")
                continue
            if micro_batch_size or size == 1:
                raise OutOfMemory(_OUT_OF_MEMORY.format(size=size))
            self.max_micro_batch = (size or len(batch)) // 2 or 1
            log.warning("memory ran out: micro-batches of %d examples from now on", self.max_micro_batch)
            if self.model.device.type == "cuda":
                torch.cuda.empty_cache()
        if before is not None and prompt.vectors.grad is not None:
            prompt.vectors.grad += before
        return loss

    def _accumulate(
        self, batch: Sequence[Example], prompt: SoftPrompt, micro_batch_size: int | None, num_terms: int
    ) -> Tensor:
        """Set the prompt's gradient; a loss scale that is too large for float16 is made smaller."""
        while True:
            prompt.vectors.grad = None
            total = self._backward(batch, prompt, micro_batch_size)
            gradient = prompt.vectors.grad
            if gradient is None:
                return total / num_terms
            gradient /= num_terms * self.loss_scale
            if self.loss_scale == 1 or gradient.isfinite().all() or not total.isfinite():
                return total / num_terms
            self.loss_scale /= 4

    def _backward(self, batch: Sequence[Example], prompt: SoftPrompt, micro_batch_size: int | None) -> Tensor:
        """Send the scaled sum of all losses back, micro-batch by micro-batch. Returns: the sum, without scale."""
        trunk = self.compute_trunk(prompt, batch)
        carries_gradient = any(k.requires_grad for k, _ in trunk.layers)
        leaves = [(_leaf(k, carries_gradient), _leaf(v, carries_gradient)) for k, v in trunk.layers]
        lengths = [len(row.tokens) - trunk.width + self.objective.num_tokens(row) for row in batch]
        total = torch.zeros((), device=self.model.device)
        for rows in self.micro_batches(lengths, micro_batch_size):
            stop_if_asked()
            layers = [(k.to(self.model.dtype), v.to(self.model.dtype)) for k, v in leaves]
            micro_batch = _MicroBatch(self, [batch[i] for i in rows], prompt, KeyValues(layers, trunk.mask))
            loss = self.objective.total(micro_batch.rows, micro_batch)
            (loss * self.loss_scale).backward()
            total += loss.detach()
        if carries_gradient:
            _backward_through_trunk(trunk.layers, leaves)
        return total

    def micro_batches(self, lengths: Sequence[int], most: int | None) -> list[list[int]]:
        """The rows of each forward pass over a batch whose branches have these lengths, at most `most` in one."""
        return (split_packed if self._reads_in_place else split_by_length)(lengths, most)

    def mean_loss(self, examples: Sequence[Example], prompt: SoftPrompt, batch_size: int) -> float:
        """Mean negative log-likelihood over all target tokens of the examples."""
        return self.summed_loss(examples, prompt, batch_size) / sum(len(example.target) for example in examples)

    @torch.no_grad()
    def summed_loss(self, examples: Sequence[Example], prompt: SoftPrompt, batch_size: int) -> float:
        """Negative log-likelihood of all target tokens of the examples."""
        trunk, total = self.compute_trunk(prompt), 0.0

        def losses_of_each(batch: Sequence[Example]) -> Sequence[Tensor]:
            return self.losses(batch, prompt, trunk).split([len(example.target) for example in batch])

        ordered = sorted(examples, key=lambda example: example.length)
        for start in range(0, len(ordered), batch_size):
            stop_if_asked()
            losses = torch.cat(self.rows_that_fit.run(losses_of_each, ordered[start : start + batch_size]))
            total += losses.sum().item()
        return total

    def losses(
        self, batch: Sequence[Example], prompt: SoftPrompt, trunk: KeyValues, temperature: float = 1.0
    ) -> Tensor:
        """Negative log-likelihood of every target token, example by example: `[total target length]`, float32."""
        if not self.shares_trunk:
            return plain_losses(self.model, batch, prompt, temperature)
        targets = [token for example in batch for token in example.target]
        return losses_at(*self._work(batch, prompt, trunk), targets, self.checkpoint_activations, temperature)

    def target_states(self, batch: Sequence[Example], prompt: SoftPrompt, trunk: KeyValues) -> States:
        """What the model gives where each target token is predicted, example by example."""
        if not self.shares_trunk:
            return States(plain_target_logits(self.model, batch, prompt))
        work = (*self._work(batch, prompt, trunk), self.checkpoint_activations)
        if not self.model.has_plain_head:
            return States(logits_at(*work))
        return States(hidden_states_at(*work), self.model.network.get_output_embeddings())

    def _work(
        self, batch: Sequence[Example], prompt: SoftPrompt, trunk: KeyValues
    ) -> tuple[LanguageModel, list[list[int]], KeyValues, SoftPrompt, list[int]]:
        """What a pass over targets takes, up to the positions that predict their tokens; see `network_pass`."""
        key_values, branches = self.compute_before_slot(batch, prompt, trunk)
        sequences = [[*branch, *example.target[:-1]] for branch, example in zip(branches, batch, strict=True)]
        ends = accumulate(len(sequence) for sequence in sequences)
        positions = [
            position
            for end, example in zip(ends, batch, strict=True)
            for position in range(end - len(example.target), end)
        ]
        return self.model, sequences, key_values, prompt, positions

    def choice_scores(
        self,
        batch: Sequence[Example],
        prompt: SoftPrompt,
        trunk: KeyValues,
        labels: Sequence[Labels],
        absolute: bool,
        temperature: float = 1.0,
    ) -> Tensor:
        """As `objectives.Passes.choice_scores`, by the trunk where the choices can share their row's conversation."""
        longest = max(len(ids) for of_row in labels for ids in of_row)
        if self.shares_trunk and not self.checkpoint_activations:
            # Whether padding may stand inside of the rows depends on what comes after: as much as the longest choice.
            as_long = [replace(example, target=(0,) * longest) for example in batch]
            key_values, branches = self.compute_before_slot(as_long, prompt, trunk)
            lengths = [len(branch) for branch in branches]
            if longest == 1 or self.allows_gaps(lengths, key_values.width + max(lengths) + longest - 1):
                return choice_scores(self.model, branches, key_values, prompt, labels, absolute, temperature)
        answered = [
            replace(example, target=ids) for example, of_row in zip(batch, labels, strict=True) for ids in of_row
        ]
        losses = self.losses(answered, prompt, trunk, temperature).split([len(example.target) for example in answered])
        return pad_scores(-torch.stack([of_choice.sum() for of_choice in losses]), labels)

    @cached_property
    def frozen_trunk(self) -> KeyValues:
        """The trunk up to its first slot, which no prompt changes."""
        return self._compute_frozen_trunk(None)

    @cached_property
    def frozen_trunk_in_float32(self) -> KeyValues:
        """The same where a trunk with a gradient follows: see `compute_trunk`."""
        return self._compute_frozen_trunk(torch.float32)

    @torch.no_grad()
    def _compute_frozen_trunk(self, dtype: torch.dtype | None) -> KeyValues:
        tokens, no_prompt = self.trunk[: first_slot(self.trunk)], SoftPrompt.from_seed(Slots(()), self.model)
        return self._extend(KeyValues.empty(self.model.device), tokens, no_prompt, dtype)

    def compute_trunk(self, prompt: SoftPrompt, batch: Sequence[Example] = ()) -> KeyValues:
        """The trunk at batch size 1; from its first slot on with a graph, if gradients are enabled.

        With a batch, the trunk that its examples share, where that is notably longer. With a graph it is computed in
        float32 whatever the model's precision: what a plain forward rounds once per row, and so on average loses,
        would here be rounded once for all rows together.
        """
        shared = trunk_length(batch) if self.shares_trunk and len(batch) > 1 else 0
        trunk = batch[0].tokens[:shared] if shared >= len(self.trunk) + WORTH_SHARING else self.trunk
        with_graph = torch.is_grad_enabled() and first_slot(trunk) < len(trunk)
        dtype = torch.float32 if with_graph and self.model.dtype in HALF else None
        frozen = self.frozen_trunk_in_float32 if dtype else self.frozen_trunk
        rest = trunk[frozen.width :]
        cut = first_slot(rest)
        with torch.no_grad():
            key_values = self._extend(frozen, rest[:cut], prompt, dtype)
        return self._extend(key_values, rest[cut:], prompt, dtype)

    def compute_before_slot(
        self, batch: Sequence[Example], prompt: SoftPrompt, trunk: KeyValues
    ) -> tuple[KeyValues, list[tuple[int, ...]]]:
        """Expand the trunk over a batch and compute, without a graph, what the branches hold before their first slot.

        Returns: what has been computed, and what is left of each branch.
        """
        key_values, branches = self._expand(trunk, batch)
        cuts = [first_slot(branch) % len(branch) for branch in branches]  # without a slot: 0
        rest = max(example.length - 1 - trunk.width - cut for example, cut in zip(batch, cuts, strict=True))
        prefix_has_slot = any(token < 0 for token in batch[0].tokens[: trunk.width])
        if prefix_has_slot or not any(cuts) or not self.allows_gaps(cuts, trunk.width + max(cuts) + rest):
            return key_values, branches
        queries = [branch[:cut] for branch, cut in zip(branches, cuts, strict=True)]
        with torch.no_grad():
            if self.queries is not None and trunk.width == len(self.trunk):  # kept is what follows the run's trunk
                key_values = self.queries.extend(self.model, queries, key_values, prompt)
            else:
                key_values = extend_cache(self.model, queries, key_values, prompt)
        return key_values, [branch[cut:] for branch, cut in zip(branches, cuts, strict=True)]

    def prefill(self, batch: Sequence[Example], prompt: SoftPrompt, trunk: KeyValues) -> tuple[Tensor, KeyValues]:
        """The branches of a batch. Returns: logits of each one's last token `[batch, vocabulary]`, and the cache."""
        key_values, branches = self._expand(trunk, batch)
        last = [end - 1 for end in accumulate(len(branch) for branch in branches)]
        return logits_and_cache(self.model, branches, key_values, prompt, last)

    def allows_gaps(self, lengths: Sequence[int], width: int) -> bool:
        """Whether rows of these lengths may be padded *inside* a sequence.

        A sliding window counts padding too, so padding between two tokens would shorten its reach: unless the window
        is as wide as the batch.

        Args: width: of the batch in the end, with its trunk, all padding, and what follows the rows.
        """
        window = self.model.sliding_window
        return window is None or width <= window or len(set(lengths)) == 1

    @property
    def _reads_in_place(self) -> bool:
        return self.shares_trunk and self.model.reads_trunk_in_place

    def _expand(self, trunk: KeyValues, batch: Sequence[Example]) -> tuple[KeyValues, list[tuple[int, ...]]]:
        """The trunk as what every row of a batch has, and the branches that are left."""
        key_values = trunk.expand(len(batch), in_place=self._reads_in_place)
        return key_values, [example.tokens[trunk.width :] for example in batch]

    def _extend(
        self, key_values: KeyValues, sequence: Sequence[int], prompt: SoftPrompt, dtype: torch.dtype | None
    ) -> KeyValues:
        return extend_cache(self.model, [sequence], key_values, prompt, dtype) if sequence else key_values


@dataclass(frozen=True)
class _MicroBatch:
    """Some rows of a batch as an objective sees them: `objectives.Passes`."""

    forward: Forward
    rows: Sequence[Example]
    prompt: SoftPrompt
    trunk: KeyValues

    def target_losses(self) -> Tensor:
        return self.forward.losses(self.rows, self.prompt, self.trunk)

    def token_likelihoods(self, ids: Tensor) -> Tensor:
        return self.forward.target_states(self.rows, self.prompt, self.trunk).likelihoods(ids)

    def choice_scores(self, labels: Sequence[Labels], absolute: bool, temperature: float = 1.0) -> Tensor:
        return self.forward.choice_scores(self.rows, self.prompt, self.trunk, labels, absolute, temperature)


def _leaf(tensor: Tensor, requires_grad: bool) -> Tensor:
    """The gradients of all micro-batches add up in it, so it is float32 whatever the model's precision."""
    return tensor.detach().float().requires_grad_(requires_grad)


def _backward_through_trunk(layers: Layers, leaves: Layers) -> None:
    """Send the gradients that the branches left in the leaves through the trunk's own graph."""
    outputs = [t for pair in layers for t in pair]
    gradients = [leaf.grad for pair in leaves for leaf in pair]
    reached = [(o, g) for o, g in zip(outputs, gradients, strict=True) if g is not None and o.requires_grad]
    torch.autograd.backward([o for o, _ in reached], [g.to(o.dtype) for o, g in reached])
