"""A search by Optuna that any number of processes share: a journal in the sweep's folder, and a lock per trial.

A trial belongs to the process that holds its lock. The operating system gives up a lock with its process, however that
ends, so the next one that looks for work takes the trial over, and its run goes on in its run directory.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from embedgrad_cli.cli.job_outcome import JobOutcome, Pruned
from embedgrad_cli.config.schema import WITHOUT_EFFECT
from embedgrad_cli.errors import UserError
from embedgrad_cli.storage.results_record import Results
from embedgrad_cli.storage.run_directory import is_among

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override
    from optuna import Study as OptunaStudy
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

JOURNAL = "study.journal"
LOCKS = ".study"
NAME = "embedgrad"
SETTINGS = "settings"  # of the study: the command lines that it is made of


@dataclass(frozen=True)
class Claim:
    """A trial that this process works on, until it is released."""

    number: int
    overrides: tuple[str, ...]
    lock: FileLock

    def release(self) -> None:
        with suppress(OSError):  # while it is held: whoever has opened the file sees that it is gone, and makes another
            Path(self.lock.lock_file).unlink()
        self.lock.release()


class Study:
    """The trials of a sweep.

    Args:
        folder: the sweep's.
        overrides: its command line; what has several values is searched.
        n_trials: how many there are to be, by all processes.
        seed: of what is drawn.

    Raises:
        UserError: nothing is to be searched, or the folder is that of another search, or cannot be used.
    """

    def __init__(self, folder: Path, overrides: Sequence[Override], n_trials: int, seed: int) -> None:
        self.folder, self.n_trials, self.seed = folder, n_trials, seed
        self.space = {o.get_key_element(): _distribution(o) for o in overrides if o.is_sweep_override()}
        self.fixed = [str(o.input_line) for o in overrides if not o.is_sweep_override()]
        if not self.space:
            raise UserError(
                "hydra/sweeper=optuna: nothing is to be searched. Give a setting several values or a range, for "
                "instance 'optimizer.lr=tag(log,interval(0.03,0.3))' template=system,after-query."
            )
        try:
            (folder / LOCKS).mkdir(parents=True, exist_ok=True)
            with self._lock("study"):
                self.study = open_study(folder, make=True)
                self._check_settings(overrides)
        except OSError as error:
            raise UserError(
                f"output_dir={folder} cannot hold a study: {error.strerror or error}. Give a folder that can be "
                "written, on a file system with locks."
            ) from error

    def claim(self, count: int) -> list[Claim]:
        """Trials to run: first those whose process is gone, then new ones, as many as the study lacks."""
        from optuna.samplers import TPESampler
        from optuna.trial import TrialState

        claims: list[Claim] = []
        with self._lock("study"):
            for trial in self.study.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
                if len(claims) == count or (lock := self._free(trial.number)) is None:
                    continue
                if self._is_whole(trial):
                    claims.append(self._claim(trial, lock))
                else:  # its process was killed while it drew
                    self.study.tell(trial.number, state=TrialState.FAIL)
                    lock.release()
            while len(claims) < count and len(self._trials()) < self.n_trials:
                number = len(self.study.get_trials(deepcopy=False))
                # A sampler per trial: processes that share a seed do not draw the same, and what was stopped draws as
                # if it had not been.
                self.study.sampler = TPESampler(seed=self.seed + number, constant_liar=True)
                asked = self.study.ask(self.space)
                lock = self._free(asked.number)
                assert lock is not None  # nobody else knows of it before the study's lock is given up
                claims.append(self._claim(self._trial(asked.number), lock))
        return claims

    def tell(self, claim: Claim, outcome: JobOutcome) -> JobOutcome:
        """Write down what came of a trial. Returns: the outcome."""
        from optuna.trial import TrialState

        if outcome.pruned or outcome.value is None:
            self.study.tell(claim.number, state=TrialState.PRUNED if outcome.pruned else TrialState.FAIL)
        else:
            self.study.tell(claim.number, outcome.value)
        return outcome

    def summary(self) -> str:
        """How the trials ended, and which is the best in validation: by accuracy, then by loss, as in `compare`."""
        from optuna.trial import TrialState

        trials = self._trials()
        words = {TrialState.COMPLETE: "finished", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}
        counts = Counter(words.get(trial.state, "in other hands") for trial in trials)
        text = f"Study: {len(trials)} trials, {', '.join(f'{n} {word}' for word, n in counts.items())}."
        finished = [trial for trial in trials if trial.state == TrialState.COMPLETE]
        if not finished:
            return text
        best = max(finished, key=lambda trial: (trial.value, -self._loss(trial)))
        line = " ".join(f"{key}={shlex.quote(str(value))}" for key, value in best.params.items())
        return f"{text}\nBest in validation: {best.number}, {100 * (best.value or 0):.1f} %: {line}"

    def _check_settings(self, overrides: Sequence[Override]) -> None:
        keys = {str(o.input_line): o.key_or_group for o in overrides}
        settings = sorted(line for line, key in keys.items() if not is_among(key, WITHOUT_EFFECT))
        before = self.study.user_attrs.get(SETTINGS)
        if before is None:
            self.study.set_user_attr(SETTINGS, settings)
        elif before != settings:
            raise UserError(
                f"output_dir={self.folder} holds a study of another command: {' '.join(before)}. Now it is "
                f"{' '.join(settings)}. Give another output_dir, or the same settings to go on; hydra.sweeper.n_trials "
                "may differ. Nothing was written."
            )

    def _claim(self, trial: FrozenTrial, lock: FileLock) -> Claim:
        drawn = [f"{key}={value}" for key, value in trial.params.items()]
        return Claim(trial.number, (*self.fixed, *drawn, f"hydra.sweep.subdir={trial.number}"), lock)

    def _is_whole(self, trial: FrozenTrial) -> bool:
        return trial.params.keys() == self.space.keys()

    def _trials(self) -> list[FrozenTrial]:
        return [trial for trial in self.study.get_trials(deepcopy=False) if self._is_whole(trial)]

    def _trial(self, number: int) -> FrozenTrial:
        return self.study.get_trials(deepcopy=False)[number]

    def _loss(self, trial: FrozenTrial) -> float:
        validation = Results.read(self.folder / str(trial.number) / "results.json").validation
        return validation.loss if validation else 0.0

    def _lock(self, name: str, timeout: float = -1) -> FileLock:
        return FileLock(self.folder / LOCKS / f"{name}.lock", timeout=timeout, fallback_to_soft=False)

    def _free(self, number: int) -> FileLock | None:
        """The lock of a trial, taken; None if another process has it."""
        lock = self._lock(str(number), timeout=0)
        try:
            lock.acquire()
        except Timeout:
            return None
        return lock


def open_study(folder: Path, make: bool = False) -> OptunaStudy:
    """The study in a sweep's folder, which is made if it is not there and may be."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = JournalStorage(JournalFileBackend(str(folder / JOURNAL)))
    pruner = optuna.pruners.MedianPruner(n_warmup_steps=1)  # at step 0 all are the seed
    if make and NAME not in (study.study_name for study in storage.get_all_studies()):
        return optuna.create_study(study_name=NAME, storage=storage, direction="maximize", pruner=pruner)
    return optuna.load_study(study_name=NAME, storage=storage, pruner=pruner)


def pruning(hydra: Any) -> Callable[[int, float], None] | None:
    """What a trial calls after each validation, with the step and the accuracy; None outside of a study that prunes.

    Args:
        hydra: Hydra's part of the job's config.
    """
    if hydra.runtime.choices.get("hydra/sweeper") != "optuna" or not hydra.sweeper.prune:
        return None
    study, number = open_study(Path(hydra.sweep.dir)), int(hydra.sweep.subdir)

    def report(step: int, accuracy: float) -> None:
        storage = study._storage  # Optuna's own way in, `Trial`, would draw again
        id = storage.get_trial_id_from_study_id_trial_number(study._study_id, number)
        storage.set_trial_intermediate_value(id, step, accuracy)
        if study.pruner.prune(study, storage.get_trial(id)):
            raise Pruned(f"pruned after step {step}.")

    return report


def _distribution(override: Override) -> BaseDistribution:
    """What Optuna draws from for a setting with several values."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    value: Any = override.value()
    if override.is_interval_sweep():
        kind = IntDistribution if isinstance(value.start, int) and isinstance(value.end, int) else FloatDistribution
        return kind(value.start, value.end, log="log" in value.tags)
    if override.is_range_sweep() and not value.shuffle:
        values: list[Any] = list(override.sweep_iterator())
        kind = FloatDistribution if isinstance(values[0], float) else IntDistribution
        return kind(min(values), max(values), step=abs(value.step))
    return CategoricalDistribution(list(override.sweep_string_iterator()))
