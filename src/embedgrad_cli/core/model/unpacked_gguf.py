"""GGUF files as ordinary model folders: transformers dequantises a file once, and the folder is kept in its cache.

So everything else reads safetensors, a tokenizer and a config, whatever the model came from, and only the first command
waits: `gguf` takes seconds to read a large vocabulary, and is made to read it several times. Packed weights would not
do: a kernel that multiplies with them returns no gradient.
"""

from __future__ import annotations

import io
import logging
import shutil
import tempfile
from collections import Counter
from contextlib import redirect_stderr
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from embedgrad_cli import assets
from embedgrad_cli.errors import ModelError, first_line
from embedgrad_cli.storage.files import write_json
from embedgrad_cli.storage.gguf_files import GgufRecord, named_gguf, sha256_of

log = logging.getLogger(__name__)

RECORD = "gguf.json"  # in the folder
NEEDED = ("gguf", "accelerate")  # packages, beside transformers; pyproject.toml has them as the extra `gguf`


def place_of(path: str) -> str:
    """What transformers loads for a `model.path`: a packaged folder, a GGUF file's unpacked one, or the path as it is.

    Raises:
        UserError: there is no packaged folder of that name.
        ModelError: the GGUF file cannot be unpacked.
    """
    file = named_gguf(path)
    return assets.resolve(path) if file is None else str(_unpacked(file))


def gguf_record(path: str) -> GgufRecord | None:
    """Hash and quantisation of the GGUF file that a `model.path` names; None if it names none.

    Raises:
        ModelError: the file cannot be unpacked.
    """
    file = named_gguf(path)
    return None if file is None else GgufRecord.read(_unpacked(file) / RECORD)


def _unpacked(file: Path) -> Path:
    """The folder that a GGUF file is unpacked into: of the same bytes and the same transformers always the same."""
    from huggingface_hub import constants
    from transformers import __version__

    root = Path(constants.HF_HOME) / "embedgrad" / "gguf"
    folder = root / f"{sha256_of(file)[:16]}-transformers-{__version__}"
    if folder.is_dir():
        return folder
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise ModelError(
            f"model.path={file} is a GGUF file, and reading it needs the package {missing[0]}, which is not installed: "
            "pip install 'embedgrad[gguf]'."
        )
    log.info("unpacking %s, once", file)
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root) as partial:
            written = _unpack(file, Path(partial))
            try:
                written.rename(folder)
            except OSError:
                if not folder.is_dir():  # else another process was faster
                    raise
    except OSError as error:
        raise ModelError(
            f"model.path={file} cannot be unpacked into {root}: {error.strerror or error}. Give a folder on a disk "
            "with room for the model in float32: HF_HOME=DIR."
        ) from error
    log.info("unpacked into %s", folder)
    return folder


def _unpack(file: Path, beside: Path) -> Path:
    """Write the model in float32, in which its numbers are computed from the packed ones. Returns: the folder."""
    alone, folder = beside / "file", beside / "folder"
    alone.mkdir()
    folder.mkdir()
    (alone / file.name).symlink_to(file.resolve())  # transformers would read other files next to it as well
    with redirect_stderr(io.StringIO()):  # progress bars that nothing else turns off
        record = _read_record(file)
        network, tokenizer = _load(alone, file)
        _check_space(network, file, beside)
        network.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    write_json(folder / RECORD, record)
    return folder


def _read_record(file: Path) -> GgufRecord:
    """Raises: ModelError, if the file is damaged, no GGUF file, or a part of several."""
    from gguf import GGUFReader, LlamaFileType

    try:
        reader = GGUFReader(file)
        fields = {
            name: reader.fields[name].contents()
            for name in ("general.file_type", "split.count")
            if name in reader.fields
        }
    except Exception as error:  # whatever a damaged file leads the reader to; no list of it exists
        raise _unreadable(file, error) from error
    if fields.get("split.count", 1) > 1:
        raise ModelError(
            f"model.path={file} is one of the {fields['split.count']} parts of a model, which transformers cannot "
            "join. Join them with llama.cpp: llama-gguf-split --merge FIRST_PART WHOLE.gguf"
        )
    kinds = Counter[str]()
    for tensor in reader.tensors:
        kinds[tensor.tensor_type.name] += int(tensor.n_elements)
    try:
        quantization = LlamaFileType(fields["general.file_type"]).name.removeprefix("MOSTLY_").removeprefix("ALL_")
    except (KeyError, ValueError):
        quantization = kinds.most_common(1)[0][0]
    return GgufRecord(sha256=sha256_of(file), quantization=quantization)


def _load(folder: Path, file: Path) -> tuple[Any, Any]:
    """Network and tokenizer as transformers reads them from a folder with nothing but the GGUF file.

    Raises:
        ModelError: it cannot, is too old to, leaves weights packed, or does not find all of them.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        from transformers import GgufConfig
    except ImportError as error:
        raise ModelError(
            f"model.path={file} is a GGUF file, and reading it needs transformers 5.19 or later: pip install "
            "'embedgrad[gguf]'."
        ) from error
    dense = GgufConfig(dequantize=True)
    settings = {
        "gguf_file": file.name,
        "dtype": torch.float32,
        "output_loading_info": True,
        "quantization_config": dense,
    }
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=file.name)
        loaded: Any = AutoModelForCausalLM.from_pretrained(folder, **settings)
    except Exception as error:  # an unknown architecture, type or key: each reader has exceptions of its own
        raise _unreadable(file, error) from error
    network, report = loaded
    if missing := sorted({*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])}):
        # transformers would fill them with random numbers
        raise _unreadable(file, LookupError(f"it has no fitting tensor for {', '.join(missing[:3])}."))
    _check_dense(network, file)
    if hasattr(network.config, "quantization_config"):  # it is dense now, and is to be saved
        del network.config.quantization_config
    network.hf_quantizer = None
    return network, tokenizer


def _check_dense(network: Any, file: Path) -> None:
    packed = {type(module).__name__ for module in network.modules() if type(module).__name__.startswith("Gguf")}
    packed |= {str(weight.dtype) for weight in network.parameters() if not weight.is_floating_point()}
    if packed:
        raise ModelError(
            f"model.path={file}: this transformers leaves weights packed ({', '.join(sorted(packed))}), and no "
            "gradient comes back through packed weights. Upgrade: pip install -U transformers; or give the folder of a "
            "model that was saved as safetensors."
        )


def _check_space(network: Any, file: Path, folder: Path) -> None:
    needed = sum(parameter.numel() * parameter.element_size() for parameter in network.parameters())
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise ModelError(
            f"model.path={file}: unpacked it takes {needed:,} bytes, and {free:,} are free in {folder.parent}. Give "
            "another folder for it: HF_HOME=DIR."
        )


def _unreadable(file: Path, error: Exception) -> ModelError:
    reason = first_line(error)
    return ModelError(
        f"model.path={file} cannot be read as a GGUF file of a causal language model: {reason} Copy it again, or give "
        "the folder of a model that was saved as safetensors."
    )
