"""The rows of a run, encoded and put into the batches that the run would make of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from embedgrad_cli.config.fields import seeds_of
from embedgrad_cli.config.schema import OptimizeConfig
from embedgrad_cli.config.task_schema import TaskConfig
from embedgrad_cli.core.model.language_model import LanguageModel
from embedgrad_cli.core.objectives import make_objective
from embedgrad_cli.core.objectives.training_examples import training_examples
from embedgrad_cli.core.passes.batching import training_batches
from embedgrad_cli.core.passes.forward import Forward
from embedgrad_cli.core.passes.operations import Costs, answer_operations, loss_operations, needed_operations
from embedgrad_cli.core.passes.trunk_check import why_no_trunk
from embedgrad_cli.core.prompt.soft_prompt import SoftPrompt
from embedgrad_cli.core.text.answer_tokens import Choices
from embedgrad_cli.core.text.few_shot import shown_template
from embedgrad_cli.core.text.marked_tokens import Example, trunk_length
from embedgrad_cli.core.text.template import PromptTemplate
from embedgrad_cli.evaluation.arms import Arm, ArmPrompt, ArmSet, build_arms
from embedgrad_cli.forecast.figures import WorkFigures
from embedgrad_cli.tasks.load import Splits


@dataclass(frozen=True)
class Workload:
    """What a run computes.

    Args:
        forward: over the training examples.
        prompt: at step 0.
        batches: of every step, in order.
        validation, test: the arms that answer there.
    """

    config: OptimizeConfig
    forward: Forward
    prompt: SoftPrompt
    examples: list[Example]
    batches: list[list[Example]]
    validation: ArmSet
    test: ArmSet

    @classmethod
    def of(
        cls, config: OptimizeConfig, model: LanguageModel, splits: Splits, shares_trunk: bool | None = None
    ) -> Workload:
        """Encode all rows.

        Args:
            model: its weights need not be loaded if `shares_trunk` is given.
            shares_trunk: whether the model can share a trunk; None tries it out, as a run does.

        Raises:
            DataError, TemplateError: what a run would raise.
        """
        task, train, seeds = config.task, config.train, seeds_of(config.prompt)
        template = shown_template(config, splits)
        renderer = PromptTemplate(template, list(seeds), model.tokenizer, model.is_chat)
        objective = make_objective(config.objective, task, splits.train, renderer)
        encoded = training_examples(splits.train, renderer, model, task, objective)
        prompt = SoftPrompt.from_seed(encoded.slots, model)
        examples, of_seed = encoded.examples, {"seed": ArmPrompt(seeds)}
        in_test = {"none": ArmPrompt(), **of_seed, "optimized": of_seed["seed"]}
        shares = why_no_trunk(model, examples, prompt) is None if shares_trunk is None else shares_trunk
        batches = training_batches(
            examples, train.batch_size, config.seed, 0, train.tokens_per_batch, lambda example: example.length
        )
        return cls(
            config,
            Forward(model, examples, shares, checkpoint_activations=train.checkpoint_activations),
            prompt,
            examples,
            list(islice(batches, train.steps)),
            build_arms(splits.validation, model, template, task, of_seed, shares_trunk, with_targets=True),
            build_arms(splits.test, model, template, task, in_test, shares_trunk),
        )

    @property
    def model(self) -> LanguageModel:
        return self.forward.model

    @property
    def num_validations(self) -> int:
        """The seed's, then one every `eval_every` steps and after the last."""
        train = self.config.train
        return 1 + -(-train.steps // train.eval_every)

    def step_operations(self, costs: Costs) -> list[int]:
        """Of each step. What stands before the prompt is kept after the first epoch, where it is kept."""
        keeps, seen, operations = self.config.train.cache_queries == "auto", 0, list[int]()
        for batch in self.batches:
            operations.append(needed_operations(costs, batch, queries_kept=keeps and seen >= len(self.examples)))
            seen += len(batch)
        return operations

    def step_figures(self, costs: Costs) -> WorkFigures | None:
        """Of a mean step; None where there is none."""
        count = len(self.batches)
        if not count:
            return None
        trunks = [trunk_length(batch) for batch in self.batches]
        branches = [
            sum(len(example.tokens) - trunk for example in batch)
            for batch, trunk in zip(self.batches, trunks, strict=True)
        ]
        targets = sum(len(example.target) for batch in self.batches for example in batch)
        return WorkFigures(
            rows=round(sum(map(len, self.batches)) / count),
            trunk=round(sum(trunks) / count),
            branch=round(sum(branches) / count),
            target=round(targets / count),
            operations=sum(self.step_operations(costs)) // count,
        )

    def validation_figures(self, costs: Costs) -> WorkFigures:
        """Of one validation: answers, and the loss on the targets."""
        (arm,) = self.validation.arms.values()
        figures = answer_figures(arm, self.config.task, costs)
        operations = figures.operations + loss_operations(costs, arm.examples)
        return WorkFigures(figures.rows, figures.trunk, figures.branch, figures.target, operations)

    def test_figures(self, costs: Costs) -> WorkFigures:
        """Of the test: the answers of all arms."""
        parts = [answer_figures(arm, self.config.task, costs) for arm in self.test.arms.values()]
        return WorkFigures(*(sum(column) for column in zip(*(vars(part).values() for part in parts), strict=True)))


def answer_figures(arm: Arm, task: TaskConfig, costs: Costs, lengths: Sequence[int] | None = None) -> WorkFigures:
    """Of one answer to each row of an arm.

    Args: lengths: tokens of each generated answer; None: as many as there may be.
    """
    trunk = trunk_length(arm.examples)
    if task.kind == "choice":
        added = [_after_the_first(arm.choices[options]) for options in arm.options]
        targets = [sum(map(len, arm.choices[options].ids)) for options in arm.options]
    else:
        targets = list(lengths or [task.max_new_tokens] * len(arm.examples))
        added = [max(length - 1, 0) for length in targets]
    branch = sum(len(example.tokens) - trunk for example in arm.examples)
    return WorkFigures(len(arm.examples), trunk, branch, sum(targets), answer_operations(costs, arm.examples, added))


def _after_the_first(choices: Choices) -> int:
    """The tokens of choices that the query's last position does not predict."""
    return sum(len(ids) - 1 for ids in choices.ids)
