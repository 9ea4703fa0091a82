"""What to change in the next run, from where in this one the best validation was."""

from __future__ import annotations

from embedgrad_cli.config.schema import OptimizeConfig
from embedgrad_cli.storage.results_record import Validation


def advice_after(best: Validation, last_step: int, config: OptimizeConfig) -> str | None:
    """A sentence or two for the end of a run; None where its course asks for nothing.

    Args:
        best: the validation that chose the prompt.
        last_step: how many steps were made.
    """
    settings, rate = config.train, config.optimizer.lr
    slower = f"a smaller rate (optimizer.lr={rate / 3:.2g})"
    if (more_often := max(settings.eval_every // 5, 1)) < min(settings.eval_every, last_step):
        slower += f", more validations (train.eval_every={more_often})"
    if not last_step or best.accuracy == 1.0:
        return None
    if best.step == 0:
        return (
            f"No validation up to step {last_step} was better than the seed's, so the seed's vectors are saved. The "
            f"learning rate was too high, or these examples taught nothing: try {slower}, or more examples."
        )
    if best.step == last_step == settings.steps:
        return (
            f"The best validation was the last one, after step {last_step}, so the run may have ended too early: try "
            f"more steps (train.steps={2 * settings.steps})."
        )
    if best.step == settings.eval_every and last_step >= 3 * settings.eval_every:
        return (
            f"The best validation was the first one after the seed's, at step {best.step} of {last_step}: the learning "
            f"rate may be too high, or the examples too few: try {slower}, or more examples."
        )
    return None
