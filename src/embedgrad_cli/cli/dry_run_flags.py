"""`--dry-run`, `--memory` and `--tflops` of optimize, which are no settings: see `config.dry_run`."""

from __future__ import annotations

import math
import re

from embedgrad_cli.config.dry_run import DryRun
from embedgrad_cli.errors import ConfigError

DRY_RUN, MEMORY, TFLOPS = "--dry-run", "--memory", "--tflops"
GIGA = 10**9
_NUMBER = re.compile(r"(?P<number>\d+(\.\d+)?|\.\d+) ?(?P<unit>[a-zA-Z]*)")


def take_dry_run(command: str, words: list[str]) -> tuple[list[str], DryRun | None]:
    """Take these flags out of a command line. Returns: the other words, and what is asked for.

    Raises:
        ConfigError: a flag is of another command, stands alone, or has a value that it cannot have.
    """
    rest, values, problems = list[str](), dict[str, str](), list[str]()
    waiting = iter(words)
    for word in waiting:
        flag, has_value, value = word.partition("=")
        if flag not in (DRY_RUN, MEMORY, TFLOPS):
            rest.append(word)
            continue
        values[flag] = value if has_value or flag == DRY_RUN else next(waiting, "")
    if not values:
        return words, None
    if command != "optimize":
        raise ConfigError([f"{flag} is a flag of `embedgrad optimize`." for flag in values])
    if DRY_RUN not in values:
        raise ConfigError([f"{flag} goes with {DRY_RUN}." for flag in values])
    if values[DRY_RUN] not in ("", "time"):
        problems.append(f"{DRY_RUN}={values[DRY_RUN]}: give {DRY_RUN}, which loads no weights, or {DRY_RUN}=time.")
    memory = _number(MEMORY, values, ("", "g", "gb"), "the device's memory in GB: --memory 24", problems)
    tflops = _number(TFLOPS, values, ("",), "10^12 operations per second, as the device sustains them", problems)
    if values[DRY_RUN] == "time" and tflops is not None:
        problems.append(f"{DRY_RUN}=time measures what {TFLOPS} assumes: give one of them.")
    if problems:
        raise ConfigError(problems)
    return rest, DryRun(values[DRY_RUN] == "time", None if memory is None else int(memory * GIGA), tflops)


def _number(flag: str, values: dict[str, str], units: tuple[str, ...], words: str, problems: list[str]) -> float | None:
    if flag not in values:
        return None
    found = _NUMBER.fullmatch(values[flag])
    number = float(found["number"]) if found and found["unit"].lower() in units else 0.0
    if number > 0 and math.isfinite(number):
        return number
    problems.append(f"{flag} {values[flag]}".rstrip() + f": give {words}.")
    return None
