"""One optimisation, from the rows to the best prompt in validation; `final_test` then tests it.

The shared prefix of the examples, their trunk, is computed once per step: see `core.passes.forward`.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from embedgrad_cli.config.fields import seeds_of
from embedgrad_cli.config.schema import OptimizeConfig
from embedgrad_cli.core.kernels.memory import free_memory
from embedgrad_cli.core.model.language_model import LanguageModel
from embedgrad_cli.core.objectives import Objective, make_objective
from embedgrad_cli.core.objectives.training_examples import training_examples
from embedgrad_cli.core.passes.engine import OWN, Engine
from embedgrad_cli.core.passes.forward import Forward
from embedgrad_cli.core.passes.query_cache import SHARE_OF_FREE_MEMORY, QueryCache
from embedgrad_cli.core.passes.trunk_check import why_no_trunk
from embedgrad_cli.core.prompt.artifact import artifact_metadata, save_artifact
from embedgrad_cli.core.prompt.soft_prompt import SoftPrompt, relative_drift
from embedgrad_cli.core.text.encoding import Renderings
from embedgrad_cli.core.text.few_shot import shown_template
from embedgrad_cli.core.text.marked_tokens import Example
from embedgrad_cli.core.text.template import PromptTemplate
from embedgrad_cli.errors import EmbedgradError, EndedElsewhere, EngineError, UserError
from embedgrad_cli.evaluation.arms import ArmPrompt, ArmSet, build_arms
from embedgrad_cli.evaluation.validation import answer_and_grade, loss_by_scores, mean_loss
from embedgrad_cli.parallel.ranks import ALONE, Ranks
from embedgrad_cli.storage.artifact_metadata import PromptMetrics
from embedgrad_cli.storage.interrupts import StopAsked, Stopped, StopRequest, stop_if_asked
from embedgrad_cli.storage.metrics_records import StepMetrics, ValidationMetrics
from embedgrad_cli.storage.run_digests import RunDigests
from embedgrad_cli.storage.run_directory import RunDirectory
from embedgrad_cli.storage.stopwatch import Stopwatch
from embedgrad_cli.tasks.load import Row, Splits
from embedgrad_cli.tasks.row_filter import RowFilter
from embedgrad_cli.terminal.progress import TrainingDisplay
from embedgrad_cli.training.averaging import Averaging
from embedgrad_cli.training.checkpoint import TrainingState, load_checkpoint, save_checkpoint
from embedgrad_cli.training.gradient import set_gradient
from embedgrad_cli.training.optimizer import learning_rate, make_optimizer
from embedgrad_cli.training.targets import Material, make_targets
from embedgrad_cli.training.token_dropout import TokenDropout
from embedgrad_cli.training.trust_region import TrustRegion

log = logging.getLogger(__name__)

OnValidation = Callable[[int, float], None]
VALIDATION = "validation"  # the arm that the prompt in training is: it changes under its name


class NonFiniteLoss(EmbedgradError):
    """The loss became NaN or infinite."""


class Training:
    """One optimisation: the frozen model, the encoded examples, the prompt, and the state that checkpoints keep.

    Every rank has all of it and takes the same steps; what is computed per row they share, and the first one writes.

    Args:
        directory: with a checkpoint in it, the run goes on from there.
        overrides: the command line, which artifacts record.
        digests: of what the run works on, for its files.
        renderings: of rows under the seed, if some are known already.
        stopwatch: of the command, whose phases go on here.
        ranks: the processes of the run.
        engine: what answers in validation and test.

    Raises:
        DataError, TemplateError, ModelError: the rows, the template or the model do not go together.
        ArtifactError: the checkpoint is damaged, or another prompt's.
    """

    def __init__(
        self,
        config: OptimizeConfig,
        model: LanguageModel,
        splits: Splits,
        directory: RunDirectory,
        overrides: Sequence[str] | None = None,
        digests: RunDigests | None = None,
        renderings: Renderings | None = None,
        stopwatch: Stopwatch | None = None,
        ranks: Ranks = ALONE,
        engine: Engine = OWN,
    ) -> None:
        self.ranks, self.is_quiet, self.engine = ranks, config.quiet or not ranks.is_first, engine
        self.config, self.model, self.splits, self.directory = config, model, splits, directory
        self.overrides, self.digests, self.seen_rows = overrides, digests, RowFilter.of(splits)
        self.stopwatch = stopwatch or Stopwatch()
        self.stopwatch.begin("encoding")
        self.template = shown_template(config, splits)
        prompt_template, objective = self._objective(splits.train)
        self.encoded = training_examples(splits.train, prompt_template, model, config.task, objective, renderings)
        self.prompt = SoftPrompt.from_seed(self.encoded.slots, model)
        self.trust_region = TrustRegion(config.trust_region, model.embedding_rms)
        self.optimizer = make_optimizer(config.optimizer, self.prompt)
        self.averaging = Averaging(config.train.average)
        self.token_dropout = TokenDropout(config.train.token_dropout, config.seed)
        self.state = TrainingState(best_vectors=self.prompt.seed.clone(), validation_due=True)
        self.stopwatch.begin("checking")
        self.shares_trunk = why_no_trunk(model, self.encoded.examples, self.prompt) is None
        self.stopwatch.begin("encoding")
        self.targets = make_targets(self._material(prompt_template, objective))
        self.forward = self._training_forward()
        arm = {VALIDATION: ArmPrompt(seeds_of(config.prompt))}
        self.validation = self.build_arms(splits.validation, arm, with_targets=True)
        if directory.checkpoint.exists():
            self.state = load_checkpoint(directory.checkpoint, self.prompt, self.optimizer)
            self.forward.loss_scale = self.state.loss_scale or self.forward.loss_scale
        elif ranks.is_first:  # nobody knows any more what answers in the test, if there are some, were given to
            directory.answers.unlink(missing_ok=True)
        if ranks.is_first:
            directory.keep_metrics_up_to(self.state.step, with_validation=not self.state.validation_due)
        log.info("%s; from step %d", self._summary(), self.state.step)

    def fit(self, on_validation: OnValidation | None = None) -> None:
        """Optimiser steps, with a validation every `eval_every` of them, until the last step or no more patience.

        Args:
            on_validation: is told the step and the accuracy of each validation once its checkpoint is written.

        Raises:
            Stopped: asked to stop (Ctrl-C, SIGTERM, SIGHUP); a checkpoint was written.
            UserError, EngineError: a batch cannot be made, or not answered; a checkpoint was written.
            NonFiniteLoss: the loss, of a batch or in validation, is NaN or infinite; the best prompt so far is kept.
        """
        state, directory = self.state, self.directory
        progress = (self.config.train.steps, state.step, self._summary(), state.accuracy, state.best_accuracy)
        with StopRequest(), TrainingDisplay(*progress, quiet=self.is_quiet) as display:
            try:
                self._fit(display, on_validation)
            except StopAsked:
                self._save_checkpoint()
                where = "before the validation " if state.validation_due else ""
                raise self.ranks.alike(Stopped(f"{where}after step {state.step}", directory.path)) from None
            except (UserError, EndedElsewhere, EngineError):  # of a reward, say, whose function the user can mend
                self._save_checkpoint()
                raise

    def _fit(self, display: TrainingDisplay, on_validation: OnValidation | None) -> None:
        settings, state = self.config.train, self.state
        if state.validation_due:  # the seed's, or one that a stop interrupted
            self._validate(display)
            self._save_checkpoint()
            self._tell(on_validation)
        while state.step < settings.steps and not self._out_of_patience():
            self.stopwatch.begin("answering")
            self._step(self.targets.batch(state.step, self.prompt), display)
            validates = state.step % settings.eval_every == 0 or state.step == settings.steps
            state.validation_due = validates
            if validates:
                self._validate(display)
            if validates or state.step % settings.checkpoint_every == 0:
                self._save_checkpoint()
            if validates:
                self._tell(on_validation)
        self.ranks.together(stop_if_asked)

    def _tell(self, on_validation: OnValidation | None) -> None:
        if on_validation is not None and self.state.accuracy is not None:
            on_validation(self.state.step, self.state.accuracy)

    def _step(self, batch: Sequence[Example], display: TrainingDisplay) -> None:
        """One optimiser step. A batch that teaches nothing leaves prompt and optimiser as they are."""
        self.stopwatch.begin("training")
        started, targets = time.perf_counter(), self.targets
        rate = learning_rate(self.config.optimizer, self.state.step, self.config.train.steps) * self.model.embedding_rms
        self.forward.objective = targets.objective
        done = self._descend(batch, rate) if batch else torch.zeros(2, device=self.model.device)
        # Here, and nowhere else, a step waits for the device to be done with it.
        loss, norm, drift = torch.cat([done, relative_drift(self.prompt).mean().view(1)]).tolist()
        if not math.isfinite(loss + norm):
            ids = ", ".join(example.id for example in batch)
            numbers = f"the loss is {loss} and the gradient's norm {norm}"
            raise self._not_finite(f"step {self.state.step + 1}: {numbers}. The batch was: {ids}.")
        self.state.average = self.averaging.updated(self.state.average, self.prompt)
        self.state.step += 1
        seconds = time.perf_counter() - started
        row = StepMetrics(
            step=self.state.step,
            loss=loss,
            grad_norm=norm,
            lr=rate,
            drift=drift,
            tokens=sum(len(example.tokens) + targets.objective.num_tokens(example) for example in batch),
            seconds=round(seconds, 4),
            reward=targets.rewards.mean if targets.rewards else None,
            rows_used=targets.rewards.rows_used if targets.rewards else None,
        )
        self._append_metrics(row)
        display.step(row)

    def _descend(self, batch: Sequence[Example], rate: float) -> Tensor:
        """Gradient, clipping, update, trust region. Returns: `[2]`, loss and the gradient's norm before clipping."""
        settings = self.config.optimizer
        self.engine.rest()
        self.optimizer.zero_grad()
        size = self.config.train.micro_batch_size
        used = self.token_dropout.of(self.prompt, self.state.step)
        loss = set_gradient(self.forward, batch, used, size if isinstance(size, int) else None, self.ranks)
        self.token_dropout.hand_back(used, self.prompt, self.state.step)
        self.trust_region.add_penalty_gradient(self.prompt)
        norm = torch.nn.utils.clip_grad_norm_(self.prompt.parameters(), settings.max_grad_norm or math.inf)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.trust_region.project(self.prompt)
        return torch.stack([loss, norm])

    def _training_forward(self) -> Forward:
        settings, device = self.config.train, self.model.device
        budget = int(SHARE_OF_FREE_MEMORY * free_memory(device)) if settings.cache_queries == "auto" else 0
        if device.type == "cpu":  # whose memory all have in common
            budget //= self.ranks.on_this_machine
        budget = min(self.ranks.gather(lambda: budget))
        queries = QueryCache(budget) if budget else None
        checkpoints = settings.checkpoint_activations
        examples = self.encoded.examples
        return Forward(self.model, examples, self.shares_trunk, queries, checkpoints, self.targets.objective)

    def _validate(self, display: TrainingDisplay) -> None:
        """Measure validation accuracy and loss; keep the prompt if it is the best so far."""
        self.stopwatch.begin("validation")
        prompt = self.averaging.of(self.prompt, self.state.average, self.state.step)
        arm = replace(self.validation.arms[VALIDATION], prompt=prompt)
        rows, batch_size = self.validation.rows, self.config.evaluation.batch_size
        done = display.validation(len(rows))
        outcomes = answer_and_grade(arm, rows, self.config.task, batch_size, self.ranks, self.engine.decoder, done)
        self.engine.rest()
        accuracy = sum(o.correct for o in outcomes) / len(outcomes)
        loss = loss_by_scores(arm, rows, outcomes)
        if loss is None:
            loss = mean_loss(arm, batch_size, self.ranks)
        if not math.isfinite(loss):
            raise self._not_finite(f"the validation after step {self.state.step}: the loss is {loss}.")
        better = self.state.update_best(accuracy, loss, prompt.vectors)
        self.state.validation_due = False
        if better:
            self.write_artifact(prompt, PromptMetrics(validation=self.state.validation))
        row = ValidationMetrics(step=self.state.step, validation_accuracy=accuracy, validation_loss=loss, best=better)
        self._append_metrics(row)
        display.validated(row)
        log.info("step %d: validation accuracy %.4f, loss %.4f", self.state.step, accuracy, loss)

    def _objective(self, rows: Sequence[Row]) -> tuple[PromptTemplate, Objective]:
        """What renders the seed, and what is minimised on the targets that the data has."""
        seeds = list(seeds_of(self.config.prompt))
        prompt_template = PromptTemplate(self.template, seeds, self.model.tokenizer, self.model.is_chat)
        return prompt_template, make_objective(self.config.objective, self.config.task, rows, prompt_template)

    def _material(self, prompt_template: PromptTemplate, objective: Objective) -> Material:
        kept = {example.id for example in self.encoded.examples}
        return Material(
            config=self.config,
            model=self.model,
            template=self.template,
            prompt_template=prompt_template,
            rows=[row for row in self.splits.train if row.id in kept],
            examples=self.encoded.examples,
            objective=objective,
            shares_trunk=self.shares_trunk,
            directory=self.directory,
            tested=self.splits.test,
            ranks=self.ranks,
            engine=self.engine,
        )

    def build_arms(self, rows: list[Row], prompts: dict[str, ArmPrompt], with_targets: bool = False) -> ArmSet:
        """`evaluation.arms.build_arms` with this run's model, template and task."""
        return build_arms(rows, self.model, self.template, self.config.task, prompts, with_targets=with_targets)

    def _append_metrics(self, row: StepMetrics | ValidationMetrics) -> None:
        if self.ranks.is_first:
            self.directory.append_metrics(row)

    def write_artifact(self, prompt: SoftPrompt, metrics: PromptMetrics) -> None:
        """Write a prompt with what is known of it; the first rank does."""
        if not self.ranks.is_first:
            return
        splits, overrides = self.splits, self.overrides
        revision, shown = splits.report.revision, splits.demonstrations
        metadata = artifact_metadata(
            prompt, self.model, self.config, splits.fewshot, splits.hash, metrics, overrides, revision, shown
        )
        save_artifact(self.directory.prompt, prompt, metadata, self.seen_rows)

    def _save_checkpoint(self) -> None:
        self.state.loss_scale = self.forward.loss_scale
        if self.ranks.is_first:
            save_checkpoint(self.directory.checkpoint, self.state, self.prompt, self.optimizer, self.digests)

    def _out_of_patience(self) -> bool:
        patience = self.config.train.patience
        return patience is not None and self.state.validations_since_best >= patience

    def _not_finite(self, what: str) -> Exception:
        is_kept = self.state.best_accuracy is not None
        kept = f"The best prompt of the steps before is kept in {self.directory.prompt}. " if is_kept else ""
        mend = "A smaller optimizer.lr, or model.dtype=float32 or bfloat16, usually mends this."
        return self.ranks.alike(NonFiniteLoss(f"{what} {kept}{mend}"))

    def _summary(self) -> str:
        c, slots = self.config, self.prompt.slots
        return (
            f"{c.task.name} on {c.model.path} · {len(self.encoded.examples)} training, {len(self.validation.rows)} "
            f"validation examples · {slots.num_tokens} prompt tokens · trunk {len(self.forward.trunk)} tokens"
        )
