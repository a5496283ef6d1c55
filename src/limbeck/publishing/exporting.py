"""`limbeck export`: a student as a folder that needs nothing of Limbeck."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

from limbeck.errors import CheckpointError, ConfigError
from limbeck.files import read_json, scratch_beside
from limbeck.publishing.card import model_card
from limbeck.training.rundir import RunDirectory

_ADAPTER = "adapter"
CARD = "README.md"


def export(
    run: Path | str, out: Path, *, merge: bool = True, licence: str | None = None, name: str | None = None
) -> Path:
    """Write a run's student, with its card as README.md, into a new folder; returns it.

    `licence` and `name` (what the model will be called) go into the card.

    With `merge` a plain Hugging Face folder with all weights, LoRA's added into them. Without, LoRA's adapter alone,
    with the tokenizer and the generation_config, to be put on the model that it was trained on. The folder appears
    whole or not at all. Raises `CheckpointError` for a run without a student, `ConfigError` where `out` holds anything
    or there is no adapter.
    """
    directory = RunDirectory.existing(Path(run))
    student = directory.student
    if not (student / "config.json").is_file():
        raise CheckpointError(f"the run {directory.path} has no student yet; wait for its first validation or its end")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out} exists already; choose another folder with -o, or remove it")
    files = exported_files(student, merge=merge)
    with scratch_beside(out) as scratch:
        made = scratch / "model"
        made.mkdir()
        for file, source in files.items():
            # Whatever the run's folder allows to others, what is handed on is a new file.
            shutil.copyfile(source, made / file)
        (made / CARD).write_text(
            model_card(directory.path, licence=licence, name=name, is_adapter=not merge), encoding="utf-8"
        )
        _check_weights(made)
        if out.exists():
            out.rmdir()
        made.rename(out)
    return out


def exported_files(student: Path, *, merge: bool = True) -> dict[str, Path]:
    """The files of an export without its card: name there → file of the student. Raises `ConfigError`."""
    whole = {path.name: path for path in sorted(student.iterdir()) if path.is_file()}
    if merge:
        return whole
    adapter = student / _ADAPTER
    if not adapter.is_dir():
        raise ConfigError(f"{student} has no adapter: all of its weights were trained; export it with --merge")
    matrices = {path.name: path for path in sorted(adapter.iterdir()) if path.is_file()}
    shared = ("tokenizer", "generation_config")
    texts = {name: path for name, path in whole.items() if name.startswith(shared) or name.endswith((".jinja", ".txt"))}
    # The student's own files last: an adapter of an earlier version has its base's end tokens.
    return {**matrices, **texts}


def conversion_command(folder: Path) -> str:
    """What turns an exported folder into a GGUF file, run inside a checkout of llama.cpp.

    >>> conversion_command(Path("out/my student"))
    "python convert_hf_to_gguf.py 'out/my student' --outfile 'out/my student.gguf' --outtype q8_0"
    """
    command = ["python", "convert_hf_to_gguf.py", str(folder), "--outfile", f"{folder}.gguf", "--outtype", "q8_0"]
    return shlex.join(command)


def _check_weights(folder: Path) -> None:
    """Raise `CheckpointError` if weight files that the index names are missing, or a file is no safetensors."""
    from safetensors import SafetensorError, safe_open

    index = folder / "model.safetensors.index.json"
    named = set(read_json(index, error=CheckpointError)["weight_map"].values()) if index.is_file() else set()
    found = {path.name for path in folder.glob("*.safetensors")}
    if not found or named - found:
        raise CheckpointError(f"the student lacks weights: {', '.join(sorted(named - found)) or 'no safetensors'}")
    for name in sorted(found):
        try:
            with safe_open(folder / name, framework="np") as file:
                file.keys()
        except SafetensorError as error:
            raise CheckpointError(f"{name} of the student is damaged: {error}; train on, or restore it") from error
