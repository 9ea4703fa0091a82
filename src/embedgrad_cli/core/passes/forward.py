"""The forward pass that computes each token once: training, scoring and generation all go through it.

Two questions decide how a token is computed:

|                                | before the first slot: no gradient | from the first slot on: carries gradient       |
| ------------------------------ | ---------------------------------- | ---------------------------------------------- |
| shared by all examples: trunk  | once per run                       | once per optimiser step, at batch size 1       |
| per example: branch            | once per run, no graph kept        | once per step, with graph                      |

The trunk's keys and values are cut from its graph and handed to every micro-batch of branches as leaves. Their
gradients add up over all micro-batches and go through the trunk once, at the end. So a batch may be split at no cost.
Where the examples of a batch share more than all examples do, the batch's trunk is longer. Only positions that predict
a target token reach the last layer's MLP and the vocabulary. The same schedule is known from reinforcement learning
with shared prompts (arXiv 2606.01143); it needs no kernel.

Where attention can read the trunk in place (`core.kernels.shared_prefix_attention`), rows are packed and nothing is
padded; elsewhere every row gets a view of the trunk in a `transformers` cache, and micro-batches hold rows of similar
length.

A model whose cache cannot carry gradient uses the plain forward (`shares_trunk=False`), and so do the tests, as the
reference.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import accumulate

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, embedding

from embedgrad_cli.core.kernels.activation_checkpointing import recomputed
from embedgrad_cli.core.kernels.frozen_head_loss import frozen_head_losses
from embedgrad_cli.core.kernels.kv_cache import Layers, Past, PastCache, SharedCache
from embedgrad_cli.core.kernels.memory import OutOfMemory, is_out_of_memory
from embedgrad_cli.core.kernels.needed_positions import head_at, last_mlp_at
from embedgrad_cli.core.kernels.packed_batch import Rows
from embedgrad_cli.core.model.language_model import LanguageModel
from embedgrad_cli.core.passes.batching import split_by_length, split_packed
from embedgrad_cli.core.passes.query_cache import QueryCache, rows_of, stack
from embedgrad_cli.core.prompt.soft_prompt import SoftPrompt
from embedgrad_cli.core.text.encoding import Example, trunk_length

log = logging.getLogger(__name__)

_OUT_OF_MEMORY = (
    "memory ran out with micro-batches of {size} example(s). train.micro_batch_size=auto finds the largest that fits; "
    "where one example is too much, train.checkpoint_activations=true, model.dtype=bfloat16, a smaller model or "
    "shorter rows need less."
)

# A batch's own trunk costs one more forward pass, so it must save some.
WORTH_SHARING = 8  # tokens


class Forward:
    """Runs a frozen model over examples with a soft prompt in their slots.

    Args:
        model: the frozen language model.
        examples: all examples that will be run; the tokens they share are the trunk.
        shares_trunk: False computes every example in full.
        queries: keeps what examples hold before their first slot; None computes it anew in every step.
        recompute: compute activations again in the backward pass instead of keeping them.
    """

    def __init__(
        self,
        model: LanguageModel,
        examples: Sequence[Example],
        shares_trunk: bool = True,
        queries: QueryCache | None = None,
        recompute: bool = False,
    ) -> None:
        self.model, self.shares_trunk, self.queries, self.recompute = model, shares_trunk, queries, recompute
        self._fitting: int | None = None  # examples per micro-batch, once memory ran out
        self.trunk = examples[0].tokens[: trunk_length(examples)] if shares_trunk and examples else ()
        self._frozen_tokens = self.trunk[: _first_slot(self.trunk)]
        self._frozen: Past | None = None

    def accumulate_gradient(
        self, batch: Sequence[Example], prompt: SoftPrompt, micro_batch_size: int | None = None
    ) -> Tensor:
        """Add the gradient of the batch's loss, the mean over its target tokens, to the prompt's.

        Args:
            micro_batch_size: examples per forward pass at most; None decides by length, and takes half of it
                whenever memory runs out, with the same gradient.

        Returns: the loss, a scalar without graph.
        Raises:
            OutOfMemory: not even one example fits.
        """
        before = None if prompt.vectors.grad is None else prompt.vectors.grad.clone()
        while True:
            size = micro_batch_size or self._fitting
            try:
                return self._accumulate(batch, prompt, size)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            # Out here the error and with it the tensors of the failed pass are gone.
            if micro_batch_size or size == 1:
                raise OutOfMemory(_OUT_OF_MEMORY.format(size=size))
            self._fitting = (size or len(batch)) // 2 or 1
            log.warning("memory ran out: micro-batches of %d examples from now on", self._fitting)
            prompt.vectors.grad = None if before is None else before.clone()
            if self.model.device.type == "cuda":
                torch.cuda.empty_cache()

    def _accumulate(self, batch: Sequence[Example], prompt: SoftPrompt, micro_batch_size: int | None) -> Tensor:
        num_targets = sum(len(example.target) for example in batch)
        trunk = self.compute_trunk(prompt, batch)
        carries_gradient = any(k.requires_grad for k, _ in trunk.layers)
        leaves = [(_leaf(k, carries_gradient), _leaf(v, carries_gradient)) for k, v in trunk.layers]
        lengths = [example.length - trunk.width for example in batch]
        total = torch.zeros((), device=self.model.device)
        split = split_packed if self._reads_in_place else split_by_length
        for rows in split(lengths, micro_batch_size):
            losses = self._losses([batch[i] for i in rows], prompt, Past(leaves, trunk.mask))
            loss = losses.sum() / num_targets
            loss.backward()
            total += loss.detach()
        if carries_gradient:
            _backward_through_trunk(trunk.layers, leaves)
        return total

    @torch.no_grad()
    def mean_loss(self, examples: Sequence[Example], prompt: SoftPrompt, batch_size: int) -> float:
        """Mean negative log-likelihood over all target tokens of the examples."""
        trunk, total, count = self.compute_trunk(prompt), 0.0, 0
        ordered = sorted(examples, key=lambda example: example.length)
        for start in range(0, len(ordered), batch_size):
            losses = self._losses(ordered[start : start + batch_size], prompt, trunk)
            total, count = total + losses.sum().item(), count + len(losses)
        return total / count

    def _losses(self, batch: Sequence[Example], prompt: SoftPrompt, trunk: Past) -> Tensor:
        return self.target_losses(batch, prompt, trunk) if self.shares_trunk else self.plain_losses(batch, prompt)

    def target_losses(self, batch: Sequence[Example], prompt: SoftPrompt, trunk: Past) -> Tensor:
        """Negative log-likelihood of every target token, example by example: `[total target length]`, float32."""
        past, branches = self.compute_before_slot(batch, prompt, trunk)
        sequences = [[*branch, *example.target[:-1]] for branch, example in zip(branches, batch, strict=True)]
        ends = accumulate(len(sequence) for sequence in sequences)
        predicting = [
            place for end, example in zip(ends, batch, strict=True) for place in range(end - len(example.target), end)
        ]
        targets = torch.tensor([token for example in batch for token in example.target], device=self.model.device)
        if self.model.has_plain_head:
            hidden, _ = self.run(sequences, past, prompt, predicting, projects=False, is_last=True)
            return frozen_head_losses(hidden, self.model.network.get_output_embeddings(), targets)
        logits, _ = self.run(sequences, past, prompt, predicting, is_last=True)
        return cross_entropy(logits.float(), targets, reduction="none")

    def plain_losses(self, batch: Sequence[Example], prompt: SoftPrompt) -> Tensor:
        """`target_losses` from whole sequences and all logits, as any other tool computes them: the reference."""
        tokens, mask = self.pad([[*example.tokens, *example.target] for example in batch])
        embeds = self.embed(tokens, prompt)
        logits = self.model.network(inputs_embeds=embeds, attention_mask=mask.long(), use_cache=False).logits
        losses = []
        for row, example in enumerate(batch):
            first = len(example.tokens) - 1
            targets = torch.tensor(example.target, device=logits.device)
            predictions = logits[row, first : first + len(targets)].float()
            losses.append(cross_entropy(predictions, targets, reduction="none"))
        return torch.cat(losses)

    def compute_trunk(self, prompt: SoftPrompt, batch: Sequence[Example] = ()) -> Past:
        """The trunk at batch size 1; from its first slot on with a graph, if gradients are enabled.

        With a batch, the trunk that its examples share, where that is notably longer.
        """
        if self._frozen is None:
            nothing = Past([], torch.ones(1, 0, dtype=torch.bool, device=self.model.device))
            with torch.no_grad():
                self._frozen = self._extend(nothing, self._frozen_tokens, prompt)
        shared = trunk_length(batch) if self.shares_trunk and len(batch) > 1 else 0
        trunk = batch[0].tokens[:shared] if shared >= len(self.trunk) + WORTH_SHARING else self.trunk
        rest = trunk[len(self._frozen_tokens) :]
        first_slot = _first_slot(rest)
        with torch.no_grad():
            past = self._extend(self._frozen, rest[:first_slot], prompt)
        return self._extend(past, rest[first_slot:], prompt)

    def compute_before_slot(
        self, batch: Sequence[Example], prompt: SoftPrompt, trunk: Past
    ) -> tuple[Past, list[tuple[int, ...]]]:
        """Expand the trunk over a batch and compute, without a graph, what the branches hold before their first slot.

        Returns: what has been computed, and what is left of each branch.
        """
        past, branches = self.expand(trunk, len(batch)), [example.tokens[trunk.width :] for example in batch]
        cuts = [_first_slot(branch) % len(branch) for branch in branches]  # without a slot: 0
        live_trunk = any(token < 0 for token in batch[0].tokens[: trunk.width])
        if live_trunk or not self.shares_trunk or not any(cuts) or not self.allows_gaps(cuts):
            return past, branches
        queries = [branch[:cut] for branch, cut in zip(branches, cuts, strict=True)]
        with torch.no_grad():
            past = self._run_queries(queries, past, prompt)
        return past, [branch[cut:] for branch, cut in zip(branches, cuts, strict=True)]

    def expand(self, trunk: Past, batch_size: int) -> Past:
        """The trunk as the past of every row of a batch."""
        return trunk.expand(batch_size, in_place=self._reads_in_place)

    @property
    def _reads_in_place(self) -> bool:
        return self.shares_trunk and self.model.reads_trunk_in_place

    def prefill(self, batch: Sequence[Example], prompt: SoftPrompt, trunk: Past) -> tuple[Tensor, Past]:
        """The branches of a batch. Returns: logits of each one's last token `[batch, vocabulary]`, and the past."""
        branches = [example.tokens[trunk.width :] for example in batch]
        last = [end - 1 for end in accumulate(len(branch) for branch in branches)]
        return self.run(branches, self.expand(trunk, len(batch)), prompt, last)

    def _run_queries(self, queries: list[tuple[int, ...]], past: Past, prompt: SoftPrompt) -> Past:
        """The past extended by token sequences without slots; those that `self.queries` has are not computed."""
        if self.queries is None or past.width != len(self.trunk):  # kept is what follows the whole run's trunk
            return self.run(queries, past, prompt)[1]
        rows = [self.queries.get(query) for query in queries]
        new = [i for i, row in enumerate(rows) if row is None and queries[i]]
        # On a CPU one by one: their numbers must not depend on what they were batched with, or a resumed run, which
        # meets them in other batches, would differ from an uninterrupted one by rounding.
        for part in [[i] for i in new] if self.model.device.type == "cpu" else [new] * bool(new):
            computed = self.run([queries[i] for i in part], past.first(len(part)), prompt)[1]
            lengths = [len(queries[i]) for i in part]
            for i, row in zip(part, rows_of(computed.layers, past.mask.shape[1], lengths), strict=True):
                rows[i] = row
                self.queries.put(queries[i], row)
        known = next(row for row in rows if row is not None)
        nothing = [(k[:, :, :0], v[:, :, :0]) for k, v in known]  # of a query that the trunk holds as a whole
        kept = stack([nothing if row is None else row for row in rows])
        mask = torch.cat([past.mask, Rows.of(queries, self.model.device).mask], dim=1)
        return Past(_concatenate(past.layers, kept), mask, past.shared)

    def allows_gaps(self, lengths: Sequence[int]) -> bool:
        """Whether rows of these lengths may be padded *inside* a sequence.

        A sliding window counts places, not positions, so padding between two tokens would shorten its reach.
        """
        return self.model.sliding_window is None or len(set(lengths)) == 1

    def run(
        self,
        sequences: Sequence[Sequence[int]],
        past: Past,
        prompt: SoftPrompt,
        predicting: Sequence[int] = (),
        projects: bool = True,
        is_last: bool = False,
    ) -> tuple[Tensor, Past]:
        """One forward pass.

        Args:
            sequences: the tokens of each row.
            past: what has been computed of these rows.
            predicting: the tokens whose output is wanted, as all rows' tokens are numbered one after the other.
            projects: whether the output is logits, or the last hidden states.
            is_last: nothing follows, so the past need not be extended, and layers may be run again.

        Returns: the output `[len(predicting), vocabulary or hidden_size]`, and the extended past.
        """
        network, rows = self.model.network, Rows.of(sequences, self.model.device)
        # Of a pass that only extends the past, one place is as good as none, and all modules can take it.
        places = torch.tensor(predicting or [0], device=self.model.device)
        mask = torch.cat([past.mask, rows.mask], dim=1)
        positions = past.shared_width + (mask.long().cumsum(1) - 1)[:, past.mask.shape[1] :].clamp(min=0)
        cache: SharedCache | PastCache
        if past.shared:
            cache, tokens, seen = SharedCache(past, rows, self.model.dtype), rows.tokens[None], None
            positions = positions.flatten()[rows.places][None]
        else:
            cache, tokens, seen = PastCache(past, rows, read_only=is_last), rows.padded, mask.long()
            places = rows.places[places]
        arguments = {
            "inputs_embeds": self.embed(tokens, prompt),
            "attention_mask": seen,
            "position_ids": positions,
            "past_key_values": cache,
            "use_cache": True,
        }
        with ExitStack() as around:
            if is_last and self.recompute and torch.is_grad_enabled():
                around.enter_context(recomputed(network))
            else:
                around.enter_context(last_mlp_at(network, places))
            if projects and predicting:
                around.enter_context(head_at(network, places))
                output = network(**arguments).logits.squeeze(0)
            else:
                output = network.base_model(**arguments).last_hidden_state.flatten(0, 1)[places]
        return output[: len(predicting)], past if is_last else cache.extended_past()

    def embed(self, tokens: Tensor, prompt: SoftPrompt) -> Tensor:
        """Embeddings `[batch, width, hidden_size]` in the model's dtype: the table's, and in slots the prompt's."""
        embeds = self.model.embed(tokens.clamp(min=0))
        if not prompt.slots.num_tokens:
            return embeds
        # Not `prompt.vectors[...]`: on a CPU the threads of its backward pass add up in whatever order they come.
        vectors = embedding((-1 - tokens).clamp(min=0), prompt.vectors).to(embeds.dtype)
        return torch.where((tokens < 0).unsqueeze(-1), vectors, embeds)

    def pad(self, sequences: Sequence[Sequence[int]], left: bool = False) -> tuple[Tensor, Tensor]:
        """Pad to one width. Returns: tokens and mask, both `[batch, width]`."""
        width = max(len(sequence) for sequence in sequences)
        tokens, mask = [], []
        for sequence in sequences:
            padding = width - len(sequence)
            front, back = (padding, 0) if left else (0, padding)
            tokens.append([0] * front + [*sequence] + [0] * back)
            mask.append([False] * front + [True] * len(sequence) + [False] * back)
        device = self.model.device
        return torch.tensor(tokens, device=device), torch.tensor(mask, device=device)

    def _extend(self, past: Past, sequence: Sequence[int], prompt: SoftPrompt) -> Past:
        return self.run([sequence], past, prompt)[1] if sequence else past


def can_share_trunk(model: LanguageModel, examples: Sequence[Example], prompt: SoftPrompt) -> bool:
    """Try both ways on two examples: whether loss and gradient by the trunk equal the plain forward's.

    Recurrent and other exotic caches fail this, by an exception or by a difference; then one line is logged and the
    run goes on with the plain forward.
    """
    batch = sorted(examples, key=lambda e: e.length)[:2]
    tolerance = 1e-3 if model.dtype == torch.float32 else 0.1
    prompt = SoftPrompt(prompt.slots, prompt.seed)
    try:
        Forward(model, batch).accumulate_gradient(batch, prompt)
        by_trunk = prompt.vectors.grad
        loss = Forward(model, batch, shares_trunk=False).plain_losses(batch, prompt).mean()
        (plain,) = torch.autograd.grad(loss, prompt.vectors)
        error = 1.0 if by_trunk is None else float((by_trunk - plain).norm() / plain.norm().clamp(min=1e-20))
    except Exception as exception:  # any failure of a cache we do not know means: do not use it
        log.warning("plain forward: the model's cache cannot carry gradient (%s)", exception)
        return False
    if not error <= tolerance:
        log.warning("plain forward: the trunk's gradient differs from the plain one by %.1e", error)
        return False
    return True


def _first_slot(tokens: Sequence[int]) -> int:
    """Where the first slot begins; behind the last token if there is none."""
    return next((i for i, token in enumerate(tokens) if token < 0), len(tokens))


def _concatenate(before: Layers, after: Layers) -> Layers:
    if not before:
        return after
    return [
        (torch.cat([k, more_k], dim=2), torch.cat([v, more_v], dim=2))
        for (k, v), (more_k, more_v) in zip(before, after, strict=True)
    ]


def _leaf(tensor: Tensor, requires_grad: bool) -> Tensor:
    return tensor.detach().requires_grad_(requires_grad)


def _backward_through_trunk(layers: Layers, leaves: Layers) -> None:
    """Send the gradients that the branches left in the leaves through the trunk's own graph."""
    outputs = [t for pair in layers for t in pair]
    gradients = [leaf.grad for pair in leaves for leaf in pair]
    reached = [(o, g) for o, g in zip(outputs, gradients, strict=True) if g is not None and o.requires_grad]
    torch.autograd.backward([o for o, _ in reached], [g for _, g in reached])
