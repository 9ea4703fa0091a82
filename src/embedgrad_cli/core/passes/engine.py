"""Who generates answers: embedgrad's own decoding here, or an engine beside it (`vllm_decoder`)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

from embedgrad_cli.core.passes.forward import Forward
from embedgrad_cli.core.passes.scoring import Decoder
from embedgrad_cli.core.prompt.soft_prompt import SoftPrompt
from embedgrad_cli.storage.engine_record import EngineRecord


class Engine:
    """embedgrad's own decoding. It is always there and keeps nothing.

    `record` is what a run's results say of an engine; None: it is this one.
    """

    record: EngineRecord | None = None

    def decoder(self, forward: Forward, prompt: SoftPrompt) -> Decoder:
        """What answers examples with a prompt."""
        return Decoder(forward, prompt)

    def rest(self) -> None:
        """Leave the device's memory to training until the next answer is asked for."""

    @contextmanager
    def running(self) -> Iterator[Self]:
        """Within it answers may be asked for; afterwards nothing of the engine is left."""
        yield self


OWN = Engine()
