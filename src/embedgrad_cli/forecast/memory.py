"""The most memory that each stage of a run takes: its own code runs on the meta device (`core.kernels.live_memory`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from embedgrad_cli.config.schema import OptimizerConfig
from embedgrad_cli.core.kernels.activation_checkpointing import decoder_layers
from embedgrad_cli.core.kernels.kv_cache import KeyValues
from embedgrad_cli.core.kernels.live_memory import LOGITS, OTHER, LiveMemory
from embedgrad_cli.core.kernels.stand_in import layers_of_every_kind
from embedgrad_cli.core.model.language_model import LanguageModel
from embedgrad_cli.core.passes.forward import Forward
from embedgrad_cli.core.passes.network_pass import extend_cache, logits_and_cache
from embedgrad_cli.core.passes.plain import plain_losses
from embedgrad_cli.core.passes.query_cache import SHARE_OF_FREE_MEMORY
from embedgrad_cli.core.prompt.soft_prompt import SoftPrompt
from embedgrad_cli.core.text.marked_tokens import Example, Slots, first_slot, trunk_length
from embedgrad_cli.evaluation.arms import Arm
from embedgrad_cli.forecast.figures import Moment
from embedgrad_cli.forecast.workload import Workload

START, TRAINING, ANSWERS = "start", "training step", "validation and test"
TRUNK, ACTIVATIONS, GRADIENTS, CACHES = "trunk", "activations", "gradients", "key-value caches"
PROMPT_COPIES = 4  # its vectors, their gradient, the seed, the best vectors so far
MOMENTS = {"adamw": 2, "adam": 2, "sgd": 1}  # of the optimizer, each as large as the vectors
# Of what a stage holds, so much more does the C library keep on a CPU: freed blocks that no later tensor fitted into.
# Found by scripts/check_forecast.py: 0.6 with SmolLM2-135M on SST-2, 0.35 with Qwen2.5-0.5B on GSM8K.
FRAGMENTS = 0.4
# Of a packed weight; one in 4 bits has a float32 scale for 64 of them.
PACKED_BYTES = {"nf4": 0.5 + 4 / 64, "fp4": 0.5 + 4 / 64, "int8": 1.0, "fp8": 1.0, "4 bits": 0.5, "8 bits": 1.0}
TRIAL_BYTES = 4  # of a weight in the trial, which is in float32


@dataclass(frozen=True)
class Place:
    """Where a run would be.

    Args:
        device_type: as in `torch.device`.
        memory: bytes it may use there; None: not known.
        program: bytes of it that the program and its libraries take.
    """

    device_type: str
    memory: int | None
    program: int


def weights_of(model: LanguageModel) -> int:
    """Bytes of all parameters and buffers; of a quantised model, as they will be packed."""
    tensors = [*model.network.parameters(), *model.network.buffers()]
    total = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    packed = PACKED_BYTES.get(model.quantization.kind) if model.quantization else None
    if packed is None:
        return total
    matrices = [p for layer in decoder_layers(model.network) for p in layer.parameters() if p.dim() == 2]
    return total - int(sum(matrix.numel() * (matrix.element_size() - packed) for matrix in matrices))


def moments_of(work: Workload, place: Place) -> dict[str, Moment]:
    """The most that is held at every stage, by its name.

    Args: work: of a model on the meta device.
    """
    stages = (START, TRAINING, ANSWERS) if work.batches else (START, ANSWERS)
    return {stage: moment_of(work, place, stage) for stage in stages}


def moment_of(work: Workload, place: Place, stage: str) -> Moment:
    """The most that is held at one stage."""
    parts = {"program": place.program} if place.program else {}
    parts["weights"] = weights_of(work.model)
    if stage == START:
        return Moment({**parts, "trial of the model": trial_of_half(work.model)})
    prompt = work.prompt.vectors
    copies = PROMPT_COPIES + _moments(work.config.optimizer)
    parts["prompt and optimizer"] = copies * prompt.numel() * prompt.element_size()
    if queries := _kept_queries(work, place):
        parts["kept queries"] = queries
    found = (step_memory if stage == TRAINING else answer_memory)(work, place.device_type)
    if place.device_type == "cpu":
        found["not given back"] = int(FRAGMENTS * sum(found.values()))
    return Moment({**parts, **found})


def trial_of_half(model: LanguageModel) -> int:
    """Bytes of the float32 copy on which a model of less precision is tried out, see `core.model.trial`."""
    if model.dtype == torch.float32:
        return 0
    layers = decoder_layers(model.network)
    left_out = sum(p.numel() for layer in layers[layers_of_every_kind(model.network) :] for p in layer.parameters())
    return TRIAL_BYTES * (sum(p.numel() for p in model.network.parameters()) - left_out)


class _Watched(Forward):
    """A `Forward` that says what its tensors are for, and of a batch runs two micro-batches: the last is the largest.

    After the first one the gradients of the trunk's keys and values are there.
    """

    live: LiveMemory

    @classmethod
    def over(
        cls, forward: Forward, examples: Sequence[Example], live: LiveMemory, checkpoints: bool = False
    ) -> _Watched:
        watched = cls(forward.model, examples, forward.shares_trunk, checkpoint_activations=checkpoints)
        watched.live = live
        return watched

    def compute_trunk(self, prompt: SoftPrompt, batch: Sequence[Example] = ()) -> KeyValues:
        with self.live.labelled(TRUNK):
            return super().compute_trunk(prompt, batch)

    def losses(
        self, batch: Sequence[Example], prompt: SoftPrompt, trunk: KeyValues, temperature: float = 1.0
    ) -> Tensor:
        with self.live.labelled(ACTIVATIONS):
            return super().losses(batch, prompt, trunk, temperature)

    def micro_batches(self, lengths: Sequence[int], most: int | None) -> list[list[int]]:
        ordered = sorted(super().micro_batches(lengths, most), key=lambda rows: sum(lengths[row] for row in rows))
        return ordered[:1] + ordered[1:][-1:]


def step_memory(work: Workload, device_type: str) -> dict[str, int]:
    """Bytes at the peak of the step with the largest micro-batch, weights not counted, by what they are for."""
    size, train = work.config.train.micro_batch_size, work.config.train
    most = size if isinstance(size, int) else None
    width = len(work.forward.trunk)

    def largest(batch: Sequence[Example]) -> int:
        lengths = [example.length - width for example in batch]
        return max(sum(lengths[row] for row in rows) for rows in work.forward.micro_batches(lengths, most))

    prompt = SoftPrompt(work.prompt.slots, work.prompt.seed)
    with LiveMemory(work.model.network, device_type) as live:
        forward = _Watched.over(work.forward, work.examples, live, train.checkpoint_activations)
        forward.accumulate_gradient(max(work.batches, key=largest), prompt, most)
    return _renamed(live, GRADIENTS)


@torch.no_grad()
def answer_memory(work: Workload, device_type: str) -> dict[str, int]:
    """Bytes at the peak of validation and test, weights not counted, by what they are for.

    Answers that are generated are as long as they may be.
    """
    (validation,) = work.validation.arms.values()
    arms = [validation, *work.test.arms.values()]
    arm = max(arms, key=lambda one: max(len(example.tokens) for example in one.examples))
    passes = [_loss_memory(work, validation, device_type), _first_tokens_memory(work, arm, device_type)]
    return max(passes, key=lambda parts: sum(parts.values()))


def _loss_memory(work: Workload, arm: Arm, device_type: str) -> dict[str, int]:
    rows = _longest(arm, work.config.evaluation.batch_size)
    with LiveMemory(work.model.network, device_type) as live:
        forward = _Watched.over(arm.forward, arm.examples, live)
        forward.losses(rows, arm.prompt, forward.compute_trunk(arm.prompt))
    return _renamed(live, OTHER)


def _first_tokens_memory(work: Workload, arm: Arm, device_type: str) -> dict[str, int]:
    """Of the pass over queries, or where answers are generated, of the last token of a batch of full length."""
    rows, task, generates = _longest(arm, work.config.evaluation.batch_size), work.config.task, False
    with LiveMemory(work.model.network, device_type) as live:
        forward = _Watched.over(arm.forward, arm.examples, live)
        if not forward.shares_trunk:
            plain_losses(work.model, rows[:1], arm.prompt)
            return _renamed(live, ACTIVATIONS)
        trunk = forward.compute_trunk(arm.prompt)
        logits, key_values = forward.prefill(rows, arm.prompt, trunk)
        if task.kind == "choice":
            scores = logits.float().log_softmax(-1)
        else:
            key_values, generates = _widened(key_values, task.max_new_tokens), True
            logits, key_values = logits_and_cache(
                work.model, [[0]] * len(rows), key_values, arm.prompt, range(len(rows))
            )
            scores = logits
        del scores
        held = sum(k.untyped_storage().nbytes() + v.untyped_storage().nbytes() for k, v in key_values.layers)
    parts = _renamed(live, ACTIVATIONS)
    caches = min(held * (2 if generates else 1), parts.get(ACTIVATIONS, 0))  # the one before is still there
    return {**parts, CACHES: caches, ACTIVATIONS: parts.get(ACTIVATIONS, 0) - caches}


def _widened(key_values: KeyValues, tokens: int) -> KeyValues:
    """As after so many tokens of an answer, without content."""

    def wider(tensor: Tensor) -> Tensor:
        rows, heads, width, size = tensor.shape
        return tensor.new_empty(rows, heads, width + tokens, size)

    layers = [(wider(k), wider(v)) for k, v in key_values.layers]
    mask = torch.cat([key_values.mask, key_values.mask.new_ones(len(key_values.mask), tokens)], dim=1)
    return KeyValues(layers, mask, key_values.shared_prefix)


def _renamed(live: LiveMemory, other: str) -> dict[str, int]:
    """The bytes at the peak by label; what has no label is `other`."""
    parts = dict.fromkeys((TRUNK, ACTIVATIONS, LOGITS), 0)
    for label, size in live.at_peak.items():
        name = other if label == OTHER else label
        parts[name] = parts.get(name, 0) + size
    return parts


def _longest(arm: Arm, count: int) -> list[Example]:
    return sorted(arm.examples, key=lambda example: example.length)[-count:]


def _moments(optimizer: OptimizerConfig) -> int:
    return MOMENTS[optimizer.name] if optimizer.name != "sgd" or optimizer.momentum else 0


def _kept_queries(work: Workload, place: Place) -> int:
    """Bytes of the keys and values that are kept across epochs: what stands before the prompt, within the budget."""
    if work.config.train.cache_queries != "auto" or not work.forward.shares_trunk:
        return 0
    trunk = trunk_length(work.examples)
    if any(token < 0 for token in work.examples[0].tokens[:trunk]):
        return 0
    tokens = sum(
        first_slot(branch) % len(branch)  # without a slot: 0
        for branch in {example.tokens[trunk:] for example in work.examples}
    )
    needed = tokens * _bytes_per_token(work.model)
    return needed if place.memory is None else min(needed, int(SHARE_OF_FREE_MEMORY * place.memory))


@torch.no_grad()
def _bytes_per_token(model: LanguageModel) -> int:
    """Of the keys and values of all layers."""
    with LiveMemory(model.network, "cpu"):
        nothing = SoftPrompt.from_seed(Slots(()), model)
        layers = extend_cache(model, [[0]], KeyValues.empty(model.device), nothing).layers
    return sum(tensor.numel() * tensor.element_size() for pair in layers for tensor in pair)
