"""Whether a model may be run by a shared prefix (trunk): tried out on the examples before it is relied on.

What is compared are numbers, because no config says it for all models. The reference is what the model makes of token
ids, one example at a time: that is the text prompt, whatever a model does with ids beside looking up embeddings.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from embedgrad_cli.core.kernels.activation_checkpointing import body_of
from embedgrad_cli.core.kernels.memory import OutOfMemory, is_out_of_memory
from embedgrad_cli.core.kernels.shared_prefix_attention import COPIES
from embedgrad_cli.core.model.language_model import LanguageModel
from embedgrad_cli.core.model.trial import trial_of
from embedgrad_cli.core.passes.forward import Forward
from embedgrad_cli.core.passes.network_pass import logits_and_cache
from embedgrad_cli.core.passes.plain import plain_logits
from embedgrad_cli.core.passes.scoring import batches_by_length
from embedgrad_cli.core.prompt.soft_prompt import SoftPrompt
from embedgrad_cli.core.text.marked_tokens import Example, Slots, token_ids
from embedgrad_cli.errors import ModelError, cause

log = logging.getLogger(__name__)

TOLERANCE = 1e-3  # relative; float32 rounds to about 1e-6
ROUNDING = 1e-5  # where nothing but the order of additions may differ
_NO_MEMORY = (
    "memory ran out while the model was tried out on its longest example, {tokens} tokens. Use shorter rows, a smaller "
    "model, or a device with more memory."
)


def why_no_trunk(model: LanguageModel, examples: Sequence[Example], prompt: SoftPrompt) -> str | None:
    """Compare ways of computing on a few examples of different length, the longest among them.

    Tried out are log-likelihoods by token ids, by embeddings and by the trunk; gradients by the trunk; and the logits
    after the example and after one more token. On a small float32 stand-in for the model, see `core.model.trial`. Where
    a trunk that is read in place does not do and one with a copy per row does, the model has copies from then on.

    Examples no longer than others, of several lengths, on which the model has passed are not tried out: it is the
    model's way of computing that is in question, not what the examples say.

    Returns: why this model cannot share a trunk on these examples, in words; None: it can.
    Raises:
        ModelError: what the model makes of token ids is not what it makes of their embeddings, or it is not causal.
        OutOfMemory: the longest example does not fit.
    """
    if max(example.length for example in examples) <= model.longest_tried:
        return None
    chosen, prompt = _with_a_slot(_of_different_length(examples), SoftPrompt(prompt.slots, prompt.seed), model)
    try:
        with trial_of(model) as trial:
            _check_embeddings(trial, chosen, prompt)
            _check_causal(trial, chosen[0])
            reason = _difference(trial, chosen, prompt)
            if reason and trial.reads_trunk_in_place:
                trial.reads_trunk_in_place, in_place = False, reason
                reason = _difference(trial, chosen, prompt)
                if reason is None:
                    model.reads_trunk_in_place = False
                    log.warning(COPIES, in_place)
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            raise OutOfMemory(_NO_MEMORY.format(tokens=chosen[-1].length)) from error
        raise
    if reason:
        log.warning("every example is computed in full, which is slower: %s", reason)
    elif chosen[0].length < chosen[-1].length:  # rows of one length have shown nothing of padding
        model.longest_tried = chosen[-1].length
    return reason


def _of_different_length(examples: Sequence[Example]) -> list[Example]:
    """The shortest, one of middle length, and the longest: together they have gaps where rows are padded."""
    ordered = sorted(examples, key=lambda example: example.length)
    return [ordered[i] for i in sorted({0, len(ordered) // 2, len(ordered) - 1})]


def _with_a_slot(examples: list[Example], prompt: SoftPrompt, model: LanguageModel) -> tuple[list[Example], SoftPrompt]:
    """Without a slot, the examples' first token becomes one, to have a gradient to compare."""
    if prompt.slots.num_tokens:
        return examples, prompt
    first = SoftPrompt.from_seed(Slots((examples[0].tokens[:1],)), model)
    same = [example for example in examples if example.tokens[0] == examples[0].tokens[0]]
    return [replace(example, tokens=(-1, *example.tokens[1:])) for example in same], first


@torch.no_grad()
def _check_embeddings(model: LanguageModel, examples: Sequence[Example], prompt: SoftPrompt) -> None:
    """Compare the last hidden states by token ids with those by their embeddings, one example at a time."""
    body, family = body_of(model.network), model.network.config.model_type
    if not _takes_vectors(model):
        raise ModelError(
            f"model.path={model.path}: a {family} model looks token ids up by the embeddings it is given, and vectors "
            "of a prompt have none, so embedgrad cannot drive it. Use a model of another family."
        )
    for example in examples:
        tokens = torch.tensor([token_ids(example.tokens, prompt.slots)], device=model.device)
        by_ids = body(input_ids=tokens, use_cache=False).last_hidden_state
        by_embeddings = body(inputs_embeds=model.embed(tokens), use_cache=False).last_hidden_state
        error = _relative(by_embeddings, by_ids)
        if not error <= TOLERANCE:
            raise ModelError(
                f"model.path={model.path}: a {family} model does more with token ids than look up their embeddings. "
                f"Given the embeddings instead, its states differ by {error:.0%}: vectors in place of a text would not "
                "be that text, so embedgrad cannot drive it. Use a model of another family."
            )


def _takes_vectors(model: LanguageModel) -> bool:
    """Whether embeddings that are no token's give states at all; some networks look for the tokens that they are of."""
    embeds = model.embed(torch.arange(3, device=model.device)[None])
    try:
        body_of(model.network)(inputs_embeds=embeds + embeds.square().mean().sqrt(), use_cache=False)
    except Exception as error:  # of a kind that each network chooses for itself
        if is_out_of_memory(error):
            raise
        return False
    return True


@torch.no_grad()
def _check_causal(model: LanguageModel, example: Example) -> None:
    """Compare the hidden states of a text with those under another last token: none before it may change."""
    body, size = body_of(model.network), model.network.get_input_embeddings().weight.shape[0]
    ids = [token if token >= 0 else 0 for token in example.tokens]
    texts = [[*ids, last] for last in (0, size - 1)]
    one, other = (
        body(input_ids=torch.tensor([text], device=model.device), use_cache=False).last_hidden_state[0, :-1]
        for text in texts
    )
    if not _relative(other, one) <= ROUNDING:
        family = model.network.config.model_type
        raise ModelError(
            f"model.path={model.path}: this {family} model is not causal: what comes later changes what it makes of a "
            "token, so it cannot answer token by token. Use a causal language model."
        )


def _difference(trial: LanguageModel, examples: list[Example], prompt: SoftPrompt) -> str | None:
    """In what the trunk differs from the plain forward, or None."""
    forward, prompt.vectors.grad = Forward(trial, examples), None
    try:
        forward.accumulate_gradient(examples, prompt)
        by_trunk = prompt.vectors.grad
        if by_trunk is None:
            return "its cache carries no gradient"
        if not (error := _relative(by_trunk, _plain_gradient(trial, examples, prompt))) <= TOLERANCE:  # NaN too
            return f"the gradient by a shared prefix differs from the plain one by {error:.1%}"
        if not (error := _generation_error(forward, examples, prompt)) <= TOLERANCE:
            return f"the logits of answers after a shared prefix differ from the plain ones by {error:.1%}"
    except Exception as error:  # any failure of a cache we do not know means: do not use it
        if is_out_of_memory(error):
            raise
        return f"its cache is of another kind ({cause(error)})"
    return None


def _plain_gradient(model: LanguageModel, examples: Sequence[Example], prompt: SoftPrompt) -> Tensor:
    """Of the mean loss over all targets; one example at a time, so that nothing is padded."""
    count, total = sum(len(example.target) for example in examples), torch.zeros_like(prompt.vectors)
    for example in examples:
        first = len(example.tokens) - 1
        positions = range(first, first + len(example.target))
        logits = plain_logits(model, [*example.tokens, *example.target], positions, prompt)
        losses = cross_entropy(logits, torch.tensor(example.target, device=model.device), reduction="sum")
        total += torch.autograd.grad(losses / count, prompt.vectors)[0]
    return total


@torch.no_grad()
def _generation_error(forward: Forward, examples: Sequence[Example], prompt: SoftPrompt) -> float:
    """Of the logits after the examples, and after one token more: the answer's first two tokens."""
    model, trunk, found, plain = forward.model, forward.compute_trunk(prompt), list[Tensor](), list[Tensor]()
    for rows in batches_by_length(forward, examples, len(examples), following=1):
        batch = [examples[i] for i in rows]
        logits, key_values = forward.prefill(batch, prompt, trunk)
        tokens = logits.argmax(-1).tolist()
        more, _ = logits_and_cache(model, [[token] for token in tokens], key_values, prompt, range(len(batch)))
        found.append(torch.stack([logits, more], dim=1))
        for example, token in zip(batch, tokens, strict=True):
            last = len(example.tokens) - 1
            plain.append(plain_logits(model, [*example.tokens, token], [last, last + 1], prompt))
    return _relative(torch.cat(found), torch.stack(plain))


def _relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm().clamp(min=1e-20))
