"""What a step trains on: examples, and the objective that makes a loss of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from embedgrad_cli.config.schema import OptimizeConfig, TemplateConfig
from embedgrad_cli.core.model.language_model import LanguageModel
from embedgrad_cli.core.objectives import Objective
from embedgrad_cli.core.passes.engine import OWN, Engine
from embedgrad_cli.core.prompt.soft_prompt import SoftPrompt
from embedgrad_cli.core.text.marked_tokens import Example
from embedgrad_cli.core.text.template import PromptTemplate
from embedgrad_cli.parallel.ranks import ALONE, Ranks
from embedgrad_cli.storage.run_directory import RunDirectory
from embedgrad_cli.tasks.load import Row


@dataclass(frozen=True)
class Material:
    """What targets are made of.

    Args:
        rows: the training rows, in the order of the examples.
        examples: the rows under the seed, with the targets that the data has.
        prompt_template: renders a row with the seed; `template` is the same before the seed is in it.
        objective: what suits the targets that the data has.
        shares_trunk: whether the model can compute the prefix that the examples share once.
        directory: keeps what has to outlast a stop. It need not exist before the first batch.
        tested: the rows of the test.
        ranks: share the answering of training rows; the first one writes.
        engine: generates the answers to them.
    """

    config: OptimizeConfig
    model: LanguageModel
    template: TemplateConfig
    prompt_template: PromptTemplate
    rows: Sequence[Row]
    examples: Sequence[Example]
    objective: Objective
    shares_trunk: bool
    directory: RunDirectory
    tested: Sequence[Row] = ()
    ranks: Ranks = ALONE
    engine: Engine = OWN


@dataclass(frozen=True)
class BatchRewards:
    """What the answers drawn for a batch were worth: the mean over all, and the share of rows that teach something."""

    mean: float
    rows_used: float


class Targets(Protocol):
    """Where the targets of a run come from. All its examples have tokens that `Material.examples` have too."""

    @property
    def objective(self) -> Objective:
        """What the last batch goes down; before any, one like it."""

    @property
    def rewards(self) -> BatchRewards | None:
        """Of the last batch; None where nothing is rewarded."""

    def batch(self, step: int, prompt: SoftPrompt) -> Sequence[Example]:
        """The examples of the optimiser step after `step` others; none: there is nothing to learn in this step.

        Steps come in order, from any on. The batch depends on the step and the prompt before it alone, so a resumed run
        has those of an uninterrupted one.

        Args:
            prompt: as the steps before have left it.

        Raises:
            StopAsked: asked to stop; what was finished is kept.
            EndedElsewhere: see `Ranks.together`.
        """
