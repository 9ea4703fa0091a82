"""The first signal waits for a safe point, the second one does not; without a request, none waits."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from embedgrad_cli.storage.interrupts import SIGNALS, StopAsked, StopRequest, stop_if_asked

LOADING = """
import os, signal
from embedgrad_cli.cli.main import main
from embedgrad_cli.commands import optimize
optimize.load_model = lambda *_: os.kill(os.getpid(), signal.SIGTERM)
raise SystemExit(main(["optimize", "experiment=debug", "output_dir=out"]))
"""
EXPORTING = """
import os, signal
from embedgrad_cli.cli.main import main
from embedgrad_cli.commands import export
def write(artifact, config, folder):
    (folder / "half").write_text("written")
    os.kill(os.getpid(), signal.SIGTERM)
export.writer_of = lambda format: write
raise SystemExit(main(["export", "artifact={artifact}", "format=embeds", "output_dir=out"]))
"""
ARTIFACT = Path(__file__).parent / "old_run/prompt.safetensors"


@pytest.mark.parametrize("number", SIGNALS)
def test_the_second_signal_ends_at_once(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with StopRequest():
        stop_if_asked()
        os.kill(os.getpid(), number)
        with pytest.raises(StopAsked):
            stop_if_asked()
        with pytest.raises(KeyboardInterrupt) as caught:
            os.kill(os.getpid(), number)
        assert caught.type is KeyboardInterrupt
    stop_if_asked()
    assert signal.getsignal(number) is before


@pytest.mark.slow
@pytest.mark.parametrize("code", [LOADING, EXPORTING.replace("{artifact}", str(ARTIFACT))], ids=["load", "export"])
def test_sigterm_leaves_nothing_where_there_is_nothing_to_save(code: str, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 130, done.stderr
    assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == []
