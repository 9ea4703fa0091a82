"""vLLM on this machine's CPU, in its own environment: a server that this machine alone can reach, or one job."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

STARTS_WITHIN = 900  # seconds; half a minute is usual on two idle cores
OFFLINE, PREFIX_KEYS = (Path(__file__).with_name(name) for name in ("offline.py", "prefix_keys.py"))
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
    port = free_port()
    # What `vllm serve` runs. The command itself looks for a package named vllm; the one for the CPU is named vllm-cpu.
    command = [str(python), "-m", "vllm.entrypoints.openai.api_server", "--model", str(model), "--enforce-eager"]
    command += ["--dtype", "float32", "--max-model-len", "512", "--host", "127.0.0.1", "--port", str(port), *flags]
    with running(command, log) as process:
        wait_for(process, f"http://127.0.0.1:{port}/health", log)
        yield f"http://127.0.0.1:{port}"


@contextmanager
def transformers_server(python: Path, model: Path, log: Path) -> Iterator[str]:
    """The same for `transformers serve`, which is asked for the model by its path."""
    port = free_port()
    command = [str(python), str(python.with_name("transformers")), "serve", str(model), "--device", "cpu"]
    with running([*command, "--host", "127.0.0.1", "--port", str(port)], log) as process:
        wait_for(process, f"http://127.0.0.1:{port}/health", log)
        yield f"http://127.0.0.1:{port}"


def vllm_offline(python: Path, model: Path, requests: Path, answers: Path, max_tokens: int) -> None:
    """Let `vllm.LLM.generate` answer a file of prompt embeddings, see offline.py.

    Raises:
        RuntimeError: it failed; its log, beside the answers, says why.
    """
    log = answers.with_suffix(".log")
    with running([str(python), str(OFFLINE), *map(str, (model, requests, answers, max_tokens))], log) as process:
        if process.wait() != 0:
            raise RuntimeError(f"vLLM failed; {_end_of(log)}")


def prefix_keys(python: Path) -> str:
    """What prefix_keys.py says of vLLM's prefix cache.

    Raises:
        RuntimeError: chats with other embeddings share keys, or vLLM's functions are others.
    """
    done = subprocess.run([str(python), str(PREFIX_KEYS)], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{PREFIX_KEYS}: {done.stdout}{done.stderr}")
    return done.stdout.strip()


@contextmanager
def running(command: Sequence[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a session of its own, because vLLM starts an engine process that has to end with it."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, env={**os.environ, **ENVIRONMENT}, start_new_session=True
        )
        try:
            yield process
        finally:
            _stop(process)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    end = time.monotonic() + STARTS_WITHIN
    while time.monotonic() < end:
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(1)
    raise RuntimeError(f"{process.args!r} did not start; {_end_of(log)}")


def _end_of(log: Path) -> str:
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
    return f"the end of {log}:\n{tail}"


def _stop(process: subprocess.Popen[bytes]) -> None:
    for wanted, patience in ((signal.SIGTERM, 20), (signal.SIGKILL, 20)):
        try:
            os.killpg(process.pid, wanted)  # the group that we started, and nothing else
            process.wait(patience)
        except subprocess.TimeoutExpired:
            continue
        except ProcessLookupError:
            return
