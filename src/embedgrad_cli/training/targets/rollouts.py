"""Targets that the prompt in training draws itself, anew in every step, with what each is worth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from embedgrad_cli.core.objectives import Objective, Reward, RowAnswers, leave_one_out
from embedgrad_cli.core.passes.forward import Forward
from embedgrad_cli.core.passes.sampling import Sampling
from embedgrad_cli.core.prompt.soft_prompt import SoftPrompt
from embedgrad_cli.core.text.marked_tokens import Example
from embedgrad_cli.training.targets.answering import Answering, Sampled, as_target, seed_of_round
from embedgrad_cli.training.targets.rewards import make_rewards
from embedgrad_cli.training.targets.targets import BatchRewards, Material
from embedgrad_cli.training.targets.written import batches_from

Rewarded = tuple[str, list[tuple[int, ...]], list[float]]  # a row's id, its answers' tokens, what each is worth


class Rollouts:
    """Draws `objective.samples` answers to each row of a batch with the prompt as it is, and rewards them.

    Rows come in the order of `Written`. What is drawn depends on the run's seed, the step, the row's id and the
    answer's number. Rows whose rewards agree are left out: their advantages are zero. So a batch may be empty.
    """

    def __init__(self, material: Material) -> None:
        settings = material.config.objective
        assert settings.samples is not None  # config.reward has seen to it
        assert settings.temperature is not None
        self.material, self.num_samples, self.temperature = material, settings.samples, settings.temperature
        self.rows = {row.id: row for row in material.rows}
        self.rewards_of = make_rewards(settings.reward, material.config.task)
        self.forward = Forward(material.model, material.examples, material.shares_trunk)
        self.objective: Objective = Reward({}, 1, self.temperature)
        self.rewards: BatchRewards | None = None
        self._batches: Iterator[list[Example]] | None = None

    def batch(self, step: int, prompt: SoftPrompt) -> Sequence[Example]:
        """As `Targets.batch`: those of the next rows that have something to teach, each row once.

        Raises:
            UserError: a reward is none.
        """
        if self._batches is None:
            self._batches = batches_from(step, self.material.examples, self.material.config)
        examples = next(self._batches)
        rewarded = [row for batch in self._answering(prompt, step).batches(examples, self._rewarded) for row in batch]
        found = {
            row: RowAnswers.of([tuple(ids) for ids in targets], leave_one_out(rewards))
            for row, targets, rewards in rewarded
        }
        self.objective = Reward(found, len(examples) * self.num_samples, self.temperature)
        used = [example for example in examples if found[example.id].ids]
        worth = {row: sum(rewards) for row, _, rewards in rewarded}
        mean = sum(worth[example.id] for example in examples) / (len(examples) * self.num_samples)
        self.rewards = BatchRewards(mean, len(used) / len(examples))
        return used

    def _answering(self, prompt: SoftPrompt, step: int) -> Answering:
        config = self.material.config
        seed = seed_of_round(config.seed, step)
        sampling = Sampling(num_samples=self.num_samples, temperature=self.temperature, seed=seed)
        at_once = max(config.evaluation.batch_size, self.num_samples)
        return Answering(
            self.forward, prompt, config.task, at_once, sampling, self.material.ranks, self.material.engine
        )

    def _rewarded(self, examples: Sequence[Example], answers: Sequence[Sequence[Sampled]]) -> list[Rewarded]:
        texts = [[one.text for one in of_row] for of_row in answers]
        rewards = self.rewards_of([self.rows[example.id] for example in examples], texts)
        template = self.material.prompt_template
        return [
            (example.id, [as_target(one.answer, template) for one in of_row], of_rewards)
            for example, of_row, of_rewards in zip(examples, answers, rewards, strict=True)
        ]
