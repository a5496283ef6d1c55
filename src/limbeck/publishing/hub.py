"""`limbeck push`: a student in a repository on the Hugging Face hub."""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from limbeck.errors import CheckpointError, ConfigError, ModelError
from limbeck.publishing.card import model_card
from limbeck.publishing.exporting import CARD, export, exported_files
from limbeck.training.rundir import RunDirectory

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True, kw_only=True)
class Pushed:
    """What is, or would be, in the repository: files with their bytes, and the card. `url` is "" in a dry run."""

    repository: str
    files: tuple[tuple[str, int], ...]
    card: str
    url: str = ""

    def values(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        files = [{"name": name, "bytes": size} for name, size in self.files]
        return {"repository": self.repository, "url": self.url, "files": files, "card": self.card}


def push(
    run: Path | str,
    repository: str,
    *,
    dry_run: bool = False,
    private: bool = False,
    merge: bool = True,
    licence: str | None = None,
) -> Pushed:
    """Upload a run's student with its card to ORG/NAME, which is made if it is not there.

    The files are those of `export`: nothing of the run's rows, logs or recipe leaves the machine. A dry run says what
    would be uploaded and asks no network. The login is that of huggingface_hub (`hf auth login`). Raises `ConfigError`
    for a name that is none, `CheckpointError` for a run without a student, `ModelError` for what the hub refuses.
    """
    if not _REPOSITORY.fullmatch(repository):
        raise ConfigError(f"--to is '{repository}'; write ORG/NAME, of letters, digits, and . _ -")
    directory = RunDirectory.existing(Path(run))
    if not (directory.student / "config.json").is_file():
        raise CheckpointError(f"the run {directory.path} has no student yet; wait for its first validation or its end")
    card = model_card(directory.path, licence=licence, name=repository, is_adapter=not merge)
    files = [(name, path.stat().st_size) for name, path in exported_files(directory.student, merge=merge).items()]
    listed = tuple(sorted([*files, (CARD, len(card.encode()))]))
    if dry_run:
        return Pushed(repository=repository, files=listed, card=card)
    with tempfile.TemporaryDirectory() as scratch:
        folder = export(directory.path, Path(scratch) / "model", merge=merge, licence=licence, name=repository)
        url = _upload(folder, repository, private=private)
    return Pushed(repository=repository, files=listed, card=card, url=url)


def _upload(folder: Path, repository: str, *, private: bool) -> str:
    import httpx
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError

    api = huggingface_hub.HfApi()
    try:
        made = api.create_repo(repository, private=private, exist_ok=True, repo_type="model")
        api.upload_folder(
            repo_id=repository,
            folder_path=str(folder),
            repo_type="model",
            commit_message="A student distilled by Limbeck",
        )
    except (HfHubHTTPError, OSError, ValueError, httpx.HTTPError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(
            f"the hub did not take '{repository}': {reason}\n"
            "  log in with `hf auth login` (a token that may write), and check that you may write to that name"
        ) from error
    return str(made)
