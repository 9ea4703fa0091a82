"""The errors that a user can cause or meet. `cli` prints them as plain text, never with a traceback."""


def first_line(error: BaseException) -> str:
    """What an exception of a library says, as far as it fits into a sentence; its class where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def cause(error: BaseException) -> str:
    """The kind and the first line of what is at the bottom of an error of a library, without a full stop."""
    while error.__cause__ is not None:
        error = error.__cause__
    words = (str(error).strip() or "no message").splitlines()[0].rstrip(".")
    return f"{type(error).__name__}: {words[:200]}"


class EmbedgradError(Exception):
    """Something failed that is not the user's input (exit code 1): out of memory, a loss that is not finite."""

    exit_code = 1


class LibraryError(EmbedgradError):
    """A library failed under a command: a model's own code, as a rule."""


class SystemRefused(EmbedgradError):
    """The operating system refused something: room on a disk, a right, memory."""


class EngineError(EmbedgradError):
    """An engine that generates answers did not start, or has ended before its time."""


class EndedElsewhere(EmbedgradError):
    """Another process of the same run has ended it and says why; this one ends without a word.

    Args:
        exit_code: 0 beside a process that fails: torchrun would end the others as soon as one of them fails, and the
            one that fails may still have to write.
    """

    def __init__(self, why: str, exit_code: int = 0) -> None:
        super().__init__(why)
        self.exit_code = exit_code


class UserError(EmbedgradError):
    """The user's input is wrong (exit code 2).

    The message is one paragraph: what was wrong, where (file, key, row), what was expected, how to mend it.
    """

    exit_code = 2


class ConfigError(UserError):
    """A setting is unknown, of the wrong type or out of range. Holds every problem found, not only the first."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


class CompareError(ConfigError):
    """Runs cannot be read, or cannot be compared. Holds every problem found."""


class DataError(UserError):
    """A data file or one of its rows is not what the task's YAML says."""


class TemplateError(UserError):
    """The conversation template cannot carry the prompt or the query."""


class ModelError(UserError):
    """The model cannot be loaded, or is not one that embedgrad can drive."""


class ArtifactError(UserError):
    """A prompt artifact cannot be read, or was made for another model."""


class ServerError(UserError):
    """A server does not answer, or not as an OpenAI-compatible one does."""
