"""`hydra/sweeper=optuna`: Hydra finds this module by its place. Optuna itself is imported when a study begins.

Hydra's own plugin, hydra-optuna-sweeper 1.3, needs Optuna below 3, does not prune, and does not finish what was killed.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


@dataclass
class OptunaSweeperConf:
    """`hydra.sweeper`.

    Args:
        n_trials: of the whole study, by whatever process.
        n_jobs: trials that this command hands to its launcher at once.
        prune: end a trial whose validation is below the median of those before it at the same step.
        seed: of what is drawn; a trial's draw depends on it, on the trial's number and on what is finished.
        params: more of what may stand on the command line: `{optimizer.lr: "tag(log, interval(0.01, 1))"}`.
    """

    _target_: str = "hydra_plugins.embedgrad_optuna.OptunaSweeper"
    n_trials: int = 20
    n_jobs: int = 1
    prune: bool = True
    seed: int = 0
    params: Any = None


ConfigStore.instance().store(group="hydra/sweeper", name="optuna", node=OptunaSweeperConf, provider="embedgrad")


class OptunaSweeper(Sweeper):
    """Maximises the validation accuracy. All processes whose sweep has the same folder work on one study."""

    launcher: Launcher
    config: DictConfig

    def __init__(self, n_trials: int, n_jobs: int, prune: bool, seed: int, params: dict[str, Any] | None) -> None:
        self.n_trials, self.n_jobs, self.prune, self.seed = n_trials, n_jobs, prune, seed
        self.params = params or {}

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.config = config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> list[Any]:
        """Claim and run trials until all of the study are finished or in other hands.

        Returns: what the launcher gave, a list per batch.

        Raises:
            UserError: nothing is to be searched, or the folder holds another study.
        """
        from embedgrad_cli.cli.study import Study

        lines = [f"{key}={value}" for key, value in self.params.items()] + list(arguments)
        overrides = OverridesParser.create().parse_overrides(lines)
        study = Study(Path(self.config.hydra.sweep.dir), overrides, self.n_trials, self.seed)
        batches: list[Any] = []
        while claims := study.claim(self.n_jobs):
            try:
                jobs: list[JobReturn] = list(
                    self.launcher.launch([claim.overrides for claim in claims], initial_job_idx=claims[0].number)
                )
                outcomes = [study.tell(claim, job.return_value) for claim, job in zip(claims, jobs, strict=True)]
            finally:  # what has no outcome is for the next command
                for claim in claims:
                    claim.release()
            batches.append(jobs)
            if any(outcome.exit_code == 2 for outcome in outcomes):  # on this machine the others would fail as well
                break
        print(study.summary(), flush=True)
        return batches
