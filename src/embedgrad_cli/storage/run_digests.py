"""What a run works on, as digests, so that nobody goes on with other data, another rendering or another model."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from embedgrad_cli.errors import UserError
from embedgrad_cli.storage.record import Record

log = logging.getLogger(__name__)

DIFFERENCES = {
    "split": "split: the rows of train, validation and test, their contents or their order, are others",
    "rendering": (
        "rendering: the same rows are other tokens now, because of another chat template or tokenizer, or of another "
        "day in a chat template that writes today's date (model.chat_template_date=YYYY-MM-DD)"
    ),
    "model": "model: its config or its weights are others",
    "prompts": "prompts: the vectors in an artifact's file are others",
    "server": "server: the model that it lists has another name",
}


@dataclass(frozen=True, kw_only=True)
class RunDigests(Record):
    """sha256 digests; `evaluation.digests` makes them and says what each can see. None: not known, or nothing there.

    `chat_template_date` and `dtype` are no digests: they are the day that the chat template was told, and the precision
    that `model.dtype=auto` came to, and hold when the run goes on. Nor is `server`: which models of which servers were
    asked, whose files nobody here knows.
    """

    split: str
    rendering: str
    model: str | None = None
    prompts: str | None = None
    chat_template_date: str | None = None
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    server: str | None = None

    def differences(self, other: RunDigests) -> list[str]:
        """The digests that are known of both and differ.

        The rendering is that of the split's rows, so of another split it tells nothing.
        """
        names = [name for name in DIFFERENCES if not (name == "rendering" and self.split != other.split)]
        pairs = {name: (getattr(self, name), getattr(other, name)) for name in names}
        return [name for name, pair in pairs.items() if None not in pair and pair[0] != pair[1]]


def check_digests(before: RunDigests | None, now: RunDigests, output_dir: Path) -> RunDigests | None:
    """Refuse to go on with another split, rendering or model.

    Args:
        before: what the run in `output_dir` began with; None: an earlier version did not keep it, which is logged.

    Returns: what the run's files are to say from now on; None where that is not known.

    Raises:
        UserError: names each that differs.
    """
    if before is None:
        warn_unchecked(output_dir)
        return None
    if now.chat_template_date and before.chat_template_date is None:
        log.warning(
            "%s does not say for which day its chat template was rendered, so it is rendered for %s",
            output_dir,
            now.chat_template_date,
        )
    differences = now.differences(before)
    if differences:
        raise UserError(
            f"output_dir={output_dir} holds a run that began with something else. "
            f"{'; '.join(DIFFERENCES[name] for name in differences)}. Give another output_dir, or what the run began "
            "with; nothing was changed."
        )
    return now


def warn_unchecked(output_dir: Path) -> None:
    log.warning(
        "%s was begun by an earlier version, which kept no digests: whether its data and its model are still the same "
        "cannot be checked",
        output_dir,
    )
