"""`embedgrad optimize --dry-run`: what the run would take. Nothing is trained and nothing written."""

from __future__ import annotations

from embedgrad_cli.config.dry_run import DryRun
from embedgrad_cli.config.schema import OptimizeConfig
from embedgrad_cli.forecast.make import make_forecast
from embedgrad_cli.storage.logs import RunLog
from embedgrad_cli.terminal.forecast import print_forecast


def run(config: OptimizeConfig, request: DryRun) -> None:
    """Print the forecast of a run.

    Raises:
        UserError: as `make_forecast`.
    """
    with RunLog(config.log_level):
        print_forecast(make_forecast(config, request))
