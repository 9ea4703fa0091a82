"""From a command line in Hydra's grammar to a checked config.

`hydra.main` stops at the first mistake and knows nothing of types. So `check_line` composes the command line first and
gathers everything that is wrong. What it composed and built is what runs; of a sweep, Hydra composes each job.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

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
from omegaconf.errors import InterpolationToMissingValueError, OmegaConfBaseException

from embedgrad_cli.config.arm_spec import SUFFIX
from embedgrad_cli.config.build import MISSING_VALUE, NO_VALUE, Config, build
from embedgrad_cli.config.dry_run import DryRun
from embedgrad_cli.config.folder import conf_dir
from embedgrad_cli.config.overrides import OverrideChecker
from embedgrad_cli.config.plugins import not_installed, sweeper_problems
from embedgrad_cli.config.recorded import Recorded
from embedgrad_cli.config.schema import WITHOUT_EFFECT
from embedgrad_cli.errors import ArtifactError, ConfigError, UserError, first_line
from embedgrad_cli.guards.limits import TookTooLong, at_most, with_memory
from embedgrad_cli.storage.artifact_header import read_header
from embedgrad_cli.storage.record import Json
from embedgrad_cli.storage.run_directory import read_settings

VERSION_BASE = "1.3"
SECONDS, BYTES = 20.0, 1 << 30  # for composing; it takes a quarter of a second and a few MiB
ENDLESS = (
    "the configs do not compose: a value is nested too deeply, holds itself (&a [*a], ${key} under its own key, a "
    "file in its own defaults list), or repeats itself too often. Write it out, without anchors (&), "
    "repetitions (*) and ${…}."
)
FROM_ARTIFACT = ("model", "template", "prompt", "task")
NEVER_FROM_ARTIFACT = ("task.overlap",)  # what is refused is not the artifact's to say


def is_the_artifacts(command: str, key: str) -> bool:
    """Whether a setting that the command line does not name is what the artifact was made with."""
    part = key.partition(".")[0]
    return command != "optimize" and part in (*FROM_ARTIFACT, "seed") and key not in NEVER_FROM_ARTIFACT


@dataclass(frozen=True)
class Request:
    """One command line, taken apart: `embedgrad COMMAND [flags] [overrides]`."""

    command: str
    overrides: list[str]
    config_dir: str | None = None
    config_name: str | None = None
    multirun: bool = False
    dry_run: DryRun | None = None


@dataclass(frozen=True)
class CheckedLine:
    """A command line that was looked at.

    Args:
        problems: everything that is wrong with it.
        config: None where something is, or where values were not looked at.
        composed: what Hydra made of it, its own part `hydra` included; None where it does not compose.
        loader: Hydra's.
        notices: what the user should know, though nothing is wrong.
    """

    problems: list[str]
    config: Config | None = None
    composed: DictConfig | None = None
    loader: ConfigLoaderImpl | None = None
    notices: Sequence[str] = ()


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

    def settings(self, config_name: str, overrides: Sequence[str] = ()) -> Json:
        """The settings of a command as plain data, Hydra's own left out and nothing interpolated."""
        plain: Any = OmegaConf.to_container(self.compose(config_name, list(overrides)), resolve=False)
        return {key: value for key, value in plain.items() if key != "hydra"}

    def file_of(self, group: str, choice: str) -> Path | None:
        """The YAML file of a choice: the user's own comes before ours."""
        folders = [Path(source.path) for source in self.loader.get_sources() if source.scheme() == "file"]
        files = [folder / group / f"{choice}.yaml" for folder in folders]
        return next((file for file in files if file.is_file()), None)

    def default_groups(self, config_name: str) -> list[str]:
        """The groups that a command's defaults list names, in its order."""
        with self._limited():
            known = self.loader.compute_defaults_list(config_name, [], RunMode.RUN).overrides.known_choices
        return [name for name in reversed(known) if not name.startswith("hydra/")]

    def compose(self, config_name: str, overrides: list[str]) -> DictConfig:
        """The composed config with its `hydra` part.

        Raises:
            ConfigError: a YAML file or an override does not compose.
        """
        with self._limited():
            return self.loader.load_configuration(config_name, overrides, RunMode.RUN)

    @contextmanager
    def _limited(self) -> Iterator[None]:
        """Composing within it ends, though YAML can write without an end in a few lines.

        Raises:
            ConfigError: what does not compose, or has no end; it names the file.
        """
        try:
            with _ending() as ended:
                yield
        except (HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError) as error:
            raise ConfigError([self._named(_plain_words(error))]) from error
        if not ended:
            raise ConfigError([self._named(ENDLESS)])

    def _named(self, problem: str) -> str:
        """A problem with the one of the user's own files that has it by itself: libraries do not always name it."""
        folders = [Path(s.path) for s in self.loader.get_sources() if s.provider == "command-line"]
        files = (file for folder in folders for file in sorted(folder.rglob("*.yaml")))
        cause = next((file for file in files if _fault_of(file, problem)), None)
        return problem if cause is None or str(cause) in problem else f"{cause}: {problem}"


def config_of(request: Request) -> Config:
    """The checked config of a command line that Hydra does not run.

    Raises:
        ConfigError: holds every problem.
    """
    line = check_line(request)
    if line.config is None or line.problems:
        raise ConfigError(line.problems)
    return line.config


def check_line(request: Request, *, values: bool = True) -> CheckedLine:
    """Compose a command line and build its config, without running it.

    Args:
        values: also check that the settings are complete, of the right type and in range, and that paths exist.
    """
    name = request.config_name or request.command
    try:
        composer = Composer(request.config_dir)
        checker = OverrideChecker(request.command, composer.groups(), composer.default_groups(name), request.multirun)
        accepted = checker.check(request.overrides)
        cfg = composer.compose(name, accepted)
        sweeper = cfg.hydra.runtime.choices.get("hydra/sweeper")
        checker.problems += sweeper_problems(request.command, sweeper, request.dry_run is not None)
    except ConfigError as error:
        return CheckedLine(error.problems)
    except (HydraException, OmegaConfBaseException, yaml.YAMLError) as error:
        return CheckedLine([_plain_words(error)])
    if not values:
        return CheckedLine(checker.problems, None, cfg, composer.loader)
    HydraConfig.instance().set_config(cfg)  # for ${hydra:…} in a user's config
    body = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])
    built = _try_build(request.command, body, cfg.hydra)
    # A setting that was given and refused is not missing as well.
    more = [p for p in built.problems if not (NO_VALUE in p and p.partition(":")[0] in checker.refused)]
    problems = list(dict.fromkeys(checker.problems + more))
    return CheckedLine(problems, built.config, cfg, composer.loader, built.notices)


def config_of_job(command: str, cfg: DictConfig) -> Config:
    """The checked config of the job of a sweep that Hydra runs now. Each has a run directory of its own.

    Raises:
        ConfigError: holds every problem.
    """
    hydra: Any = HydraConfig.get()
    cfg = cfg.copy()
    cfg.output_dir = hydra.runtime.output_dir
    built = _try_build(command, cfg, hydra)
    if built.config is None:
        raise ConfigError(built.problems)
    return built.config


class _Built(NamedTuple):
    """A config, or what is wrong with it; and what the user should know about it."""

    config: Config | None
    problems: list[str]
    notices: Sequence[str] = ()


def _try_build(command: str, cfg: DictConfig, hydra: DictConfig) -> _Built:
    plain: Any = None
    try:
        with _ending():
            plain = OmegaConf.to_container(cfg, resolve=True)
    except InterpolationToMissingValueError as error:  # a setting that others are made of
        key = str(error).splitlines()[0].rpartition(" ")[2]
        return _Built(None, [f"{key}: {NO_VALUE}, and other settings are made of it. Give {key}=…."])
    except OmegaConfBaseException as error:
        return _Built(None, [_plain_words(error)])
    if plain is None:
        return _Built(None, [ENDLESS])
    if plain.get("mode") == "regrade":
        return _try_regrade(plain, hydra)
    named = _artifacts(plain)
    headers, problems = [], list[str]()
    for file in (name for name in named if name != MISSING_VALUE):
        try:
            headers.append(read_header(file))
        except ArtifactError as error:
            problems.append(str(error))
    if headers and not problems:
        parts = [part for part in (*FROM_ARTIFACT, "seed") if part in plain]
        recorded = Recorded.of(headers[0].settings, f"artifact={named[0]}", command, NEVER_FROM_ARTIFACT)
        return _build_recorded(command, recorded, recorded.under(plain, hydra, parts), recorded.notices(plain))
    config, more = build(command, plain)
    if named or "optimized" in (plain.get("arms") or []):
        # What the artifact would have filled is not the user's omission.
        more = [p for p in more if not (p.startswith((*FROM_ARTIFACT, "arms")) and "has no value" in p)]
    problems += more
    return _Built(None if problems else config, problems)


def _artifacts(plain: Json) -> list[str]:
    """The files that a config names: the first of them has the settings that the user does not give."""
    arms = plain.get("arms")
    files = [item for item in (arms if isinstance(arms, list) else []) if str(item).endswith(SUFFIX)]
    return [file for file in (plain.get("artifact"), *files) if isinstance(file, str)]


def _try_regrade(plain: Json, hydra: DictConfig) -> _Built:
    """The settings of the evaluation in `output_dir`, under what the command line names."""
    file, needs = Path(plain["output_dir"]).expanduser() / "config.yaml", "--regrade grades an evaluation again"
    try:
        recorded = read_settings(file)
    except UserError as error:
        return _Built(None, [f"output_dir: {error} {needs}: give its folder, output_dir=DIR."])
    if "arms" not in recorded:
        return _Built(None, [f"output_dir: {file} is not the config of an evaluation. {needs}: give its folder."])
    parts = tuple(key for key in recorded if key in plain and key not in WITHOUT_EFFECT)
    evaluation = Recorded.of(recorded, str(file), "evaluate")
    return _build_recorded("evaluate", evaluation, evaluation.under(plain, hydra, parts))


def _build_recorded(command: str, recorded: Recorded, merged: Json, notices: Sequence[str] = ()) -> _Built:
    config, problems = build(command, merged)
    return _Built(config, recorded.explain(problems, merged), notices)


@contextmanager
def _ending() -> Iterator[list[None]]:
    """Within it what has no end is given up, without an error. Yields: what holds an item once all has ended."""
    ended: list[None] = []
    with suppress(RecursionError, TookTooLong, MemoryError), at_most(SECONDS), with_memory(BYTES):
        yield ended
        ended.append(None)


def _fault_of(file: Path, problem: str) -> bool:
    """Whether a YAML file has a problem by itself; of those without an end, it may be its defaults list."""
    try:
        with _ending():
            content = OmegaConf.load(file)
            return problem == ENDLESS and "defaults" in content
    except (OSError, ValueError, yaml.YAMLError, OmegaConfBaseException) as error:
        return first_line(error) in problem
    return problem == ENDLESS


def _plain_words(error: Exception) -> str:
    """An error of Hydra, OmegaConf or YAML in one line."""
    cause = error.__cause__
    text = str(error).strip() or str(cause or type(error).__name__)
    if missing := not_installed(text):
        return missing
    if cause is not None and isinstance(cause, OmegaConfBaseException) and str(cause) not in text:
        text += f": {cause}"
    lines = [line.strip() for line in text.splitlines()]
    return "the configs do not compose: " + " ".join(line for line in lines if line)
