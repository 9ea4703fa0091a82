"""From a command line in Hydra's grammar to a checked config.

`hydra.main` stops at the first mistake and knows nothing of types. So `problems_of` looks at the same command line
first and gathers everything that is wrong; only a command line without a problem is handed to Hydra.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from hydra import version
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.hydra_config import HydraConfig
from hydra.core.object_type import ObjectType
from hydra.core.utils import setup_globals
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from embedgrad_cli.artifact_header import read_header
from embedgrad_cli.config import MISSING_VALUE, NO_VALUE, Config, build, conf_dir
from embedgrad_cli.errors import ArtifactError, ConfigError
from embedgrad_cli.overrides import OverrideChecker

VERSION_BASE = "1.3"
WITH_ARTIFACT = ("evaluate", "export")  # commands in which the artifact fills what the command line does not name
FROM_ARTIFACT = ("model", "template", "prompt", "task")


@dataclass(frozen=True)
class Request:
    """One command line, taken apart: `embedgrad COMMAND [flags] [overrides]`."""

    command: str
    overrides: list[str]
    config_dir: str | None = None
    config_name: str | None = None
    multirun: bool = False


class Composer:
    """Hydra's config loader over `conf/` and the user's own folder.

    Raises:
        ConfigError: the folder of `--config-dir` does not exist.
    """

    def __init__(self, config_dir: str | None = None) -> None:
        version.setbase(VERSION_BASE)
        setup_globals()
        search_path = create_config_search_path(str(conf_dir()))
        if config_dir is not None:
            folder = Path(config_dir).absolute()
            if not folder.is_dir():
                raise ConfigError([f"--config-dir: there is no folder {config_dir!r}. Give a folder of YAML files."])
            search_path.prepend("command-line", f"file://{folder}", SearchPathQuery(provider="schema"))
        self.loader = ConfigLoaderImpl(search_path)

    def groups(self) -> dict[str, list[str]]:
        """Every config group with its choices, those in folders as `folder/name`; Hydra's own left out."""
        names = [name for name in self.loader.get_group_options("", ObjectType.GROUP) if name != "hydra"]
        return {name: self._choices(name) for name in names}

    def _choices(self, group: str) -> list[str]:
        inner = self.loader.get_group_options(group, ObjectType.GROUP)
        nested = [f"{folder}/{choice}" for folder in inner for choice in self._choices(f"{group}/{folder}")]
        return self.loader.get_group_options(group, ObjectType.CONFIG) + nested

    def default_groups(self, config_name: str) -> list[str]:
        """The groups that a command's defaults list names, in its order."""
        known = self.loader.compute_defaults_list(config_name, [], RunMode.RUN).overrides.known_choices
        return [name for name in reversed(known) if not name.startswith("hydra/")]

    def compose(self, config_name: str, overrides: list[str]) -> DictConfig:
        """The composed config with its `hydra` part.

        Raises:
            ConfigError: a YAML file or an override does not compose.
        """
        try:
            return self.loader.load_configuration(config_name, overrides, RunMode.RUN)
        except (HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError) as error:
            raise ConfigError([_plain_words(error)]) from error


def problems_of(request: Request, *, values: bool = True) -> list[str]:
    """Everything that is wrong with a command line, without running it.

    Args:
        request: the command line.
        values: also check that the settings are complete, of the right type and in range, and that paths exist.
    """
    name = request.config_name or request.command
    try:
        composer = Composer(request.config_dir)
        checker = OverrideChecker(request.command, composer.groups(), composer.default_groups(name), request.multirun)
        accepted = checker.check(request.overrides)
        cfg = composer.compose(name, accepted)
    except ConfigError as error:
        return error.problems
    except (HydraException, OmegaConfBaseException, yaml.YAMLError) as error:
        return [_plain_words(error)]
    if not values:
        return checker.problems
    HydraConfig.instance().set_config(cfg)  # for ${hydra:…} in a user's config
    body = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])
    problems = checker.problems + _try_build(request.command, body, cfg.hydra)[1]
    return list(dict.fromkeys(problems))


def config_of_job(command: str, cfg: DictConfig) -> Config:
    """The checked config of the job that Hydra runs now.

    Raises:
        ConfigError: holds every problem.
    """
    hydra: Any = HydraConfig.get()
    if hydra.mode == RunMode.MULTIRUN:  # each job of a sweep has its own run directory
        cfg = cfg.copy()
        cfg.output_dir = hydra.runtime.output_dir
    config, problems = _try_build(command, cfg, hydra)
    if config is None:
        raise ConfigError(problems)
    return config


def _try_build(command: str, cfg: DictConfig, hydra: DictConfig) -> tuple[Config | None, list[str]]:
    try:
        plain: Any = OmegaConf.to_container(cfg, resolve=True)
    except OmegaConfBaseException as error:
        return None, [_plain_words(error)]
    artifact = plain.get("artifact", MISSING_VALUE)
    problems: list[str] = []
    if isinstance(artifact, str) and artifact != MISSING_VALUE:
        try:
            header = read_header(artifact)
            if command in WITH_ARTIFACT:
                return build(command, _with_artifact(plain, header["config"], hydra))
        except ArtifactError as error:
            problems.append(str(error))
    config, more = build(command, plain)
    if command in WITH_ARTIFACT:  # what the artifact would have filled is not the user's omission
        more = [p for p in more if not (p.startswith(FROM_ARTIFACT) and NO_VALUE in p)]
    problems += more
    return (None if problems else config), problems


def _with_artifact(plain: dict[str, Any], recorded: dict[str, Any], hydra: DictConfig) -> dict[str, Any]:
    """The artifact's own settings, under the groups and keys that the command line names."""
    merged = dict(plain)
    choices = {group for group, choice in hydra.runtime.choices.items() if choice is not None}
    for part in FROM_ARTIFACT:
        if part in plain and part not in choices:
            merged[part] = recorded.get(part, {})
    named = [line.lstrip("+~").partition("=")[0] for line in hydra.overrides.task]
    if "seed" not in named:
        merged["seed"] = recorded.get("seed", plain["seed"])
    for key in named:
        part, _, rest = key.partition(".")
        if part in FROM_ARTIFACT and part in plain and rest and part not in choices:
            merged[part] = _replace(merged[part], plain[part], rest.split("."))
    return merged


def _replace(target: Any, source: Any, path: list[str]) -> Any:
    """`target` with the value that `source` has at `path`; `target` itself stays as it is."""
    if not path or not isinstance(source, dict) or path[0] not in source:
        return source if not path else target
    inner = target.get(path[0]) if isinstance(target, dict) else None
    base = target if isinstance(target, dict) else {}
    return {**base, path[0]: _replace(inner, source[path[0]], path[1:])}


def _plain_words(error: Exception) -> str:
    """An error of Hydra, OmegaConf or YAML in one line."""
    cause = error.__cause__
    text = str(error).strip() or str(cause or type(error).__name__)
    if cause is not None and isinstance(cause, OmegaConfBaseException) and str(cause) not in text:
        text += f": {cause}"
    lines = [line.strip() for line in text.splitlines()]
    return "the configs do not compose: " + " ".join(line for line in lines if line)
