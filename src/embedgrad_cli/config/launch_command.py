"""The command that made a run, from its settings."""

from __future__ import annotations

import re
import shlex
from functools import cache
from typing import Any

import yaml
from omegaconf import OmegaConf

from embedgrad_cli.config.build import over
from embedgrad_cli.config.compose import Composer
from embedgrad_cli.config.folder import conf_dir
from embedgrad_cli.errors import ConfigError
from embedgrad_cli.storage.run_directory import flatten

BARE = re.compile(r"[A-Za-z_][\w./-]*")
WORDS = ("null", "true", "false", "nan", "inf")  # what Hydra takes for something else than text
FREE = ("output_dir", "device", "log_level")  # change no result, and no artifact holds them


def command_of(config: dict[str, Any]) -> str | None:
    """`embedgrad optimize …` with only what differs from the defaults, or None if no command line says it all.

    Every group gets the shipped choice that is nearest; what is left differs key by key. The line is composed again
    and compared, so what is returned does give these settings.
    """
    overrides: list[str] = []
    defaults: dict[str, Any] = {}
    chosen = {
        name: choice
        for part in _yaml("optimize")["defaults"]
        if isinstance(part, dict)
        for name, choice in part.items()
    }
    for group, default in chosen.items():
        if group != "experiment":
            choice, defaults[group] = _nearest_choice(group, default, config.get(group, {}))
            overrides += [f"{group}={choice}"] if choice != default else []
    for name in ("problem", "base", "optimize"):
        defaults = {key: value for key, value in _yaml(name).items() if key not in ("defaults", "hydra")} | defaults
    before, after = flatten(defaults), flatten(config)
    overrides += [f"{key}={hydra_value(after[key])}" for key in after if key not in before or before[key] != after[key]]
    return shlex.join(["embedgrad", "optimize", *overrides]) if _composes_to(overrides, config) else None


def hydra_value(value: Any) -> str:
    """A value in the grammar of Hydra's overrides: `hydra_value("a b")` is `"a b"` with its quotes."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list):
        return f"[{','.join(map(hydra_value, value))}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{hydra_value(key)}:{hydra_value(item)}' for key, item in value.items())}}}"
    if not isinstance(value, str):
        return str(value)
    if BARE.fullmatch(value) and value.lower() not in WORDS:
        return value
    # Within quotes a backslash is itself, unless it stands before a quote or before an interpolation.
    escaped = re.sub(r'(\\*)("|$)', lambda m: m[1] * 2 + ('\\"' if m[2] else ""), value)
    return '"' + re.sub(r"(\\*)\$\{", lambda m: m[1] * 2 + "\\${", escaped) + '"'


def _nearest_choice(group: str, default: str, wanted: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The shipped choice of a group that shares most settings with what is wanted, and its settings."""
    folder = conf_dir() / group
    names = [path.relative_to(folder).with_suffix("").as_posix() for path in sorted(folder.rglob("*.yaml"))]
    base = (_yaml("problem") | _yaml("optimize")).get(group, {})
    settings = {name: over(base, _yaml(f"{group}/{name}")) for name in names}
    after = flatten(wanted)

    def difference(name: str) -> tuple[int, bool]:
        before = flatten(settings[name])
        return sum(before.get(key) != value for key, value in after.items()), name != default

    nearest = min(names, key=difference)
    return nearest, settings[nearest]


def _composes_to(overrides: list[str], config: dict[str, Any]) -> bool:
    try:
        composed: Any = OmegaConf.to_container(Composer().compose("optimize", overrides), resolve=False)
    except ConfigError:
        return False
    return {key: value for key, value in composed.items() if key not in ("hydra", *FREE)} == config


@cache
def _yaml(name: str) -> dict[str, Any]:
    return yaml.safe_load((conf_dir() / f"{name}.yaml").read_text(encoding="utf-8"))
