"""A vLLM server on this machine's CPU, in its own environment, reachable from this machine alone."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

STARTS_WITHIN = 900  # seconds; one minute is usual on two idle cores
ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    # Some virtual machines announce AMX and cannot run it.
    "ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16",
}


@contextmanager
def vllm_server(python: Path, model: Path, log: Path, *flags: str) -> Iterator[str]:
    """Start vLLM, wait until it answers, and stop it in the end.

    Yields: the address, http://127.0.0.1:PORT.

    Raises:
        RuntimeError: the server ended, or did not answer in time; its log says why.
    """
    port = _free_port()
    command = [str(python), "-m", "vllm.entrypoints.openai.api_server", "--model", str(model), "--enforce-eager"]
    command += ["--dtype", "float32", "--max-model-len", "512", "--host", "127.0.0.1", "--port", str(port), *flags]
    with log.open("wb") as output:
        # In a session of its own, because it starts an engine process that has to end with it.
        process = subprocess.Popen(
            command, stdout=output, stderr=output, env={**os.environ, **ENVIRONMENT}, start_new_session=True
        )
        try:
            _wait(process, f"http://127.0.0.1:{port}/health", log)
            yield f"http://127.0.0.1:{port}"
        finally:
            _stop(process)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    end = time.monotonic() + STARTS_WITHIN
    while time.monotonic() < end:
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(1)
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
    raise RuntimeError(f"vLLM did not start; the end of {log}:\n{tail}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    for wanted, patience in ((signal.SIGTERM, 20), (signal.SIGKILL, 20)):
        try:
            os.killpg(process.pid, wanted)  # the group that we started, and nothing else
            process.wait(patience)
        except subprocess.TimeoutExpired:
            continue
        except ProcessLookupError:
            return
