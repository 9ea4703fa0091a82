"""Checks of what concerns a tracker: that it is installed, and that its address holds no secret. No network."""

from __future__ import annotations

from urllib.parse import urlsplit

from embedgrad_cli.config.plugins import tracker_missing
from embedgrad_cli.config.schema import TrackerConfig


def check_tracker(tracker: TrackerConfig) -> list[str]:
    """A tracker must be there before any work is done; what is written into run directories may hold no password."""
    problems = [missing for missing in [tracker_missing(tracker.name)] if missing]
    try:
        address = urlsplit(tracker.place or "")
    except ValueError as error:
        return [*problems, f"tracker.place: {tracker.place!r} is no folder and no address: {error}."]
    if address.username or address.password or address.query:
        problems.append(
            "tracker.place: it would be written into the run directory with the name, password or query in it. Leave "
            "them out, and give them in the tracker's own environment variables: for MLflow MLFLOW_TRACKING_USERNAME "
            "and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN."
        )
    elif address.scheme and tracker.name != "mlflow" and len(address.scheme) > 1:  # one letter: a drive of Windows
        problems.append(
            f"tracker.place: {tracker.place!r} is an address, and tracker={tracker.name} takes a folder. Servers of "
            "W&B and Trackio are named in their own environment variables: WANDB_BASE_URL, TRACKIO_SERVER_URL."
        )
    return problems
