"""Shows a run in a tracker. A process of its own reads the run directory as it grows and hands on what is new there."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from embedgrad_cli.tracking.tracker import Tracker


def find_tracker(name: str) -> Tracker:
    """The tracker of this name, which is imported only here.

    Raises:
        LookupError: there is none.
    """
    match name:
        case "tensorboard":
            from embedgrad_cli.tracking.tensorboard import TensorBoard

            return TensorBoard()
        case "wandb":
            from embedgrad_cli.tracking.wandb import WeightsAndBiases

            return WeightsAndBiases()
        case "mlflow":
            from embedgrad_cli.tracking.mlflow import MLflow

            return MLflow()
        case "trackio":
            from embedgrad_cli.tracking.trackio import Trackio

            return Trackio()
    raise LookupError(name)
