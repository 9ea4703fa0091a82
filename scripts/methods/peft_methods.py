"""Prompt tuning and LoRA by PEFT.

Training is PEFT's own forward on right-padded batches. Everything around it is the product's: the encoding, the
batches, the optimiser's settings, the selection, and the decoding, so that no method gains by another way to answer.
PEFT's virtual tokens are to the product a soft prompt in front of everything (tests hold that both decode alike).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import torch
from peft import LoraConfig, PromptTuningConfig, TaskType, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_, parameters_to_vector, vector_to_parameters
from torch.nn.utils.rnn import pad_sequence

from embedgrad_cli.config.fields import seeds_of
from embedgrad_cli.core.model.language_model import LanguageModel
from embedgrad_cli.core.passes.batching import training_batches
from embedgrad_cli.core.passes.forward import Forward
from embedgrad_cli.core.prompt.soft_prompt import SoftPrompt
from embedgrad_cli.core.text.answer_tokens import encode_choices
from embedgrad_cli.core.text.encoding import encode
from embedgrad_cli.core.text.marked_tokens import Example, Slots, token_ids
from embedgrad_cli.core.text.template import PromptTemplate
from embedgrad_cli.evaluation.arms import Arm
from embedgrad_cli.evaluation.validation import answer_and_grade
from embedgrad_cli.tasks.load import Row
from embedgrad_cli.training.checkpoint import TrainingState
from embedgrad_cli.training.optimizer import learning_rate, make_optimizer

from .memory import StepMemory
from .problem import Method, Problem, weights_hash
from .records import Trial

IGNORED = -100  # the label of a place without a loss


@dataclass
class Learner:
    """A PEFT model, and the same model as the product's decoding sees it.

    `lr_unit` is what a learning rate of 1 means. `virtual_tokens` stand in front of every example's tokens.
    """

    problem: Problem
    model: LanguageModel
    wrapped: Any
    prompt_template: PromptTemplate
    lr_unit: float = 1.0
    virtual_tokens: int = 0

    @property
    def parameters(self) -> list[nn.Parameter]:
        return [p for p in self.wrapped.parameters() if p.requires_grad]

    def encode(self, rows: Sequence[Row]) -> list[Example]:
        """Rows as the product encodes them, the prompt as plain text and virtual tokens as a slot in front."""
        task = self.problem.config.task
        encoded = encode(rows, self.prompt_template, self.model, append_end_token=task.kind == "generation")
        front, slots = tuple(-1 - i for i in range(self.virtual_tokens)), encoded.slots
        return [replace(e, tokens=(*front, *token_ids(e.tokens, slots))) for e in encoded.examples]

    def loss(self, batch: Sequence[Example]) -> Tensor:
        """PEFT's loss: the mean over the batch's target tokens."""
        rows = [torch.tensor((*e.tokens[self.virtual_tokens :], *e.target)) for e in batch]
        labels = [row.clone() for row in rows]
        for label, example in zip(labels, batch, strict=True):
            label[: -len(example.target)] = IGNORED
        return self.wrapped(
            input_ids=pad_sequence(rows, batch_first=True),
            attention_mask=pad_sequence([torch.ones_like(row) for row in rows], batch_first=True),
            labels=pad_sequence(labels, batch_first=True, padding_value=IGNORED),
        ).loss

    def prompt(self) -> SoftPrompt:
        """The virtual tokens' vectors; an empty prompt if there are none."""
        slots = Slots((tuple(range(self.virtual_tokens)),) if self.virtual_tokens else ())
        if not self.virtual_tokens:
            return SoftPrompt(slots, torch.empty(0, self.model.hidden_size))
        return SoftPrompt(slots, self.wrapped.prompt_encoder["default"].embedding.weight)

    def arm(self, rows: Sequence[Row]) -> Arm:
        """For one evaluation: it keeps what it computed with the weights of now."""
        examples, task = self.encode(rows), self.problem.config.task
        options = [row.choices if task.kind == "choice" else () for row in rows]
        choices = {names: encode_choices(names, self.prompt_template) for names in dict.fromkeys(options)}
        return Arm("peft", Forward(self.model, examples), examples, options, choices, self.prompt())


def prompt_tuning(problem: Problem, init: str, num_tokens: int | None = None) -> Learner:
    """Virtual tokens where PEFT puts them, in front of the whole sequence; None: as many as the seed prompt has."""
    model, config = problem.fresh_model(), problem.config
    (text,) = seeds_of(config.prompt)
    if num_tokens is None:
        with_prompt = PromptTemplate(problem.template, [text], model.tokenizer, model.is_chat)
        num_tokens = encode(problem.splits.train[:1], with_prompt, model, append_end_token=False).slots.num_tokens
    with TemporaryDirectory() as folder:  # where PEFT reads the tokenizer from, also that of a GGUF file
        model.tokenizer.save_pretrained(folder)
        peft_config = PromptTuningConfig(
            task_type=TaskType.CAUSAL_LM,
            num_virtual_tokens=num_tokens,
            prompt_tuning_init=init,
            prompt_tuning_init_text=text,
            tokenizer_name_or_path=folder,
        )
        torch.manual_seed(config.seed)
        wrapped = get_peft_model(model.network, peft_config)
    without_prompt = PromptTemplate(problem.template, None, model.tokenizer, model.is_chat)
    return Learner(problem, model, wrapped, without_prompt, model.embedding_rms, num_tokens)


def lora(problem: Problem) -> Learner:
    """Low-rank updates of all linear layers, with the seed prompt as text."""
    model, config = problem.fresh_model(), problem.config
    prompt_template = PromptTemplate(problem.template, list(seeds_of(config.prompt)), model.tokenizer, model.is_chat)
    peft_config = LoraConfig(
        task_type=TaskType.CAUSAL_LM, r=8, lora_alpha=16, lora_dropout=0.0, target_modules="all-linear"
    )
    torch.manual_seed(config.seed)
    return Learner(problem, model, get_peft_model(model.network, peft_config), prompt_template)


@dataclass(frozen=True)
class Peft(Method):
    make: Callable[[Problem], Learner] = lora

    def train(self, problem: Problem, lr: float | None, folder: Path) -> Trial:
        assert lr is not None
        learner = self.make(problem)
        before = weights_hash(learner.model.network)
        state, seconds, memory = fit(learner, lr)
        save_file({"trained": state.best_vectors}, folder / "trained.safetensors")
        best = state.validation
        return Trial(
            lr=lr,
            accuracy=best.accuracy,
            loss=best.loss,
            step=best.step,
            parameters=state.best_vectors.numel(),
            seconds=seconds,
            peak_bytes=memory.peak,
            weights_before=before,
            weights_after=weights_hash(learner.model.network),
        )

    def arm(self, problem: Problem, folder: Path, rows: Sequence[Row]) -> Arm:
        learner = self.make(problem)
        vector_to_parameters(load_file(folder / "trained.safetensors")["trained"], learner.parameters)
        return learner.arm(rows)


def fit(learner: Learner, lr: float) -> tuple[TrainingState, float, StepMemory]:
    """`Training.fit` with PEFT's gradient: the best of the validations, what the steps took in seconds and memory."""
    config, parameters = learner.problem.config, learner.parameters
    settings, train = replace(config.optimizer, lr=lr), config.train
    optimizer = make_optimizer(settings, cast(Any, nn.ParameterList(parameters)))
    batches = training_batches(
        learner.encode(learner.problem.splits.train), train.batch_size, config.seed, 0, train.tokens_per_batch, _length
    )
    state, seconds, memory = TrainingState(best_vectors=parameters_to_vector(parameters)), 0.0, StepMemory()
    validate(learner, state)
    while state.step < train.steps and not (train.patience and state.validations_since_best >= train.patience):
        batch, started = next(batches), time.perf_counter()
        with memory:
            optimizer.zero_grad()
            loss = learner.loss(batch)
            loss.backward()
            norm = clip_grad_norm_(parameters, settings.max_grad_norm or math.inf)
            if not math.isfinite(loss.item() + norm.item()):
                break
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(settings, state.step, train.steps) * learner.lr_unit
            optimizer.step()
        state.step += 1
        seconds += time.perf_counter() - started
        if state.step % train.eval_every == 0 or state.step == train.steps:
            validate(learner, state)
    return state, seconds, memory


def _length(example: Example) -> int:
    return example.length


def validate(learner: Learner, state: TrainingState) -> None:
    """Keep the parameters if they are the best so far: more accurate, or as accurate with a smaller loss."""
    config, rows = learner.problem.config, learner.problem.splits.validation
    arm, size = learner.arm(rows), config.evaluation.batch_size
    outcomes = answer_and_grade(arm, rows, config.task, size)
    loss = arm.forward.mean_loss(arm.examples, arm.prompt, size)
    accuracy = sum(o.correct for o in outcomes) / len(outcomes)
    if math.isfinite(loss):
        state.update_best(accuracy, loss, parameters_to_vector(learner.parameters))
