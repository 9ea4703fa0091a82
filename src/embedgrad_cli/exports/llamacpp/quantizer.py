"""Weights of fewer bits, by llama.cpp's own program `llama-quantize`; the prompt's vectors stay as they are.

A GGUF tensor has one type for all of its rows. The vectors are rows of the input embeddings, so this one table is left
in its type, and everything else is quantised, output rows included.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from embedgrad_cli.config.schema import ExportConfig
from embedgrad_cli.errors import UserError
from embedgrad_cli.exports.llamacpp.weights import TABLE

SAYS_WHY = re.compile(r"failed to quantize: .*|invalid ftype.*", re.IGNORECASE)


@dataclass(frozen=True)
class Quantizer:
    """The program, and the type that it is to make, by its name for it."""

    program: str
    kind: str

    def apply(self, file: Path, table: str) -> None:
        """Put the quantised file in the place of a file whose input embeddings are of the type `table`.

        Raises:
            UserError: the program failed, or changed the input embeddings.
        """
        whole = file.with_name("whole.gguf")
        file.rename(whole)
        command = [self.program, "--token-embedding-type", table.lower(), str(whole), str(file), self.kind]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace")
        if done.returncode != 0 or not file.is_file():
            raise self._failed(done.stdout + done.stderr)
        if table_of(file) != table_of(whole):
            raise self._failed("its file does not hold the prompt's vectors as they were")
        whole.unlink()

    def _failed(self, said: str) -> UserError:
        lines = [line.strip() for line in said.splitlines() if line.strip()] or ["it said nothing"]
        found = SAYS_WHY.search(said)
        return UserError(
            f"quantize={self.kind}: {self.program} failed: {found[0] if found else lines[-1]}. Give a type that it "
            f"lists ({Path(self.program).name} --help) and a disk with room for the file before and after; nothing was "
            "left behind."
        )


def find_quantizer(config: ExportConfig) -> Quantizer | None:
    """
    Returns: None, if nothing is to be quantised.

    Raises:
        UserError: there is no such program.
    """
    if config.quantize is None:
        return None
    program = shutil.which(Path(config.quantizer).expanduser())
    if program is None:
        raise UserError(
            f"quantizer: there is no program {config.quantizer!r}, which quantize={config.quantize} needs. It comes "
            "with llama.cpp (https://github.com/ggml-org/llama.cpp); put it into PATH, or name its file: "
            "quantizer=DIR/llama-quantize."
        )
    return Quantizer(program, config.quantize)


def table_of(file: Path) -> bytes | None:
    """The bytes of the input embeddings; None if the file has none that can be read."""
    from gguf import GGUFReader

    try:
        return next((tensor.data.tobytes() for tensor in GGUFReader(file).tensors if tensor.name == TABLE), None)
    except (ValueError, LookupError):  # what no program should have written
        return None
