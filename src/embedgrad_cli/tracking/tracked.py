"""Lets a process follow a run directory while its run is made, and bears with whatever becomes of that process."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

from embedgrad_cli.config.schema import TrackerConfig
from embedgrad_cli.storage.interrupts import Stopped

log = logging.getLogger(__name__)


@contextmanager
def tracked(directory: Path, settings: TrackerConfig, is_wanted: bool = True) -> Iterator[None]:
    """Within it, the tracker shows what stands in the run directory. A tracker that fails is warned of once.

    At the end it has `settings.timeout` seconds to take what is left.
    """
    if settings.name == "none" or not is_wanted:
        yield
        return
    follower = _Process(directory, settings)
    how = "failed"
    try:
        yield
        how = "finished"
    except Stopped:
        how = "stopped"
        raise
    finally:
        follower.end(how)


class _Process:
    """The process of `tracking.__main__`, and a thread that listens to it."""

    def __init__(self, directory: Path, settings: TrackerConfig) -> None:
        self.settings = settings
        self._process: subprocess.Popen[str] | None = None
        self._has_warned = False
        # -P: what lies in the folder where the command is given is not imported.
        words = [sys.executable, "-P", "-m", "embedgrad_cli.tracking", str(directory)]
        try:
            self._process = subprocess.Popen(
                words,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                encoding="utf-8",
                start_new_session=True,  # with what it starts, it is ended as a whole
            )
            self._tell(json.dumps(asdict(settings)))
        except OSError as error:
            self._warn(str(error))
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def end(self, how: str) -> None:
        """Say how the run ended, and wait as long as is allowed."""
        if self._process is None:
            return
        self._tell(how)
        with suppress(OSError):
            self._process.stdin.close()  # type: ignore[union-attr]
        try:
            self._process.wait(self.settings.timeout)
        except subprocess.TimeoutExpired:
            self._warn(f"it did not take the end of the run within {self.settings.timeout:g} seconds")
        finally:
            if self._process.poll() is None:
                self._kill()
            self._listener.join(1)

    def _tell(self, line: str) -> None:
        with suppress(OSError):  # it is gone, which the listener says
            self._process.stdin.write(line + "\n")  # type: ignore[union-attr]
            self._process.stdin.flush()  # type: ignore[union-attr]

    def _listen(self) -> None:
        if self._process is None:
            return
        for line in self._process.stdout or ():
            words = json.loads(line)
            if "failure" in words:
                self._warn(words["failure"])
            else:
                log.info("tracker=%s shows the run: %s", self.settings.name, words["where"])
        code = self._process.wait()
        if code == -getattr(signal, "SIGALRM", 0):
            self._warn(f"it did not answer for {self.settings.timeout:g} seconds")
        elif code:
            self._warn(f"its process ended with exit code {code}")

    def _warn(self, what: str) -> None:
        if not self._has_warned:
            self._has_warned = True
            log.warning(
                "tracker=%s does not show the run any more (%s); the run goes on without it", self.settings.name, what
            )

    def _kill(self) -> None:
        assert self._process is not None
        with suppress(OSError):
            if hasattr(os, "killpg"):
                os.killpg(self._process.pid, signal.SIGKILL)
            else:
                self._process.kill()
        self._process.wait()
