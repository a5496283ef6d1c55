"""A run whose teacher lies in an offline cache: what must fit, and the teacher's vocabulary without the teacher."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import torch

from limbeck.config import Recipe
from limbeck.data.tokenizing import Encoder
from limbeck.errors import ConfigError, DataError, ModelError
from limbeck.files import read_json
from limbeck.losses.divergences import ForwardKL
from limbeck.losses.match import Match, TeacherTarget
from limbeck.methods import Method
from limbeck.models.loading import load_tokenizer
from limbeck.models.offline_cache import TEACHER, Manifest, Shards, damaged_line, text_hash
from limbeck.models.offline_teacher import OfflineTeacher, folder_fingerprint
from limbeck.models.pair import Pair, Vocabulary, compare_vocabularies, logits_width, stop_ids
from limbeck.models.teacher_cache import row_name
from limbeck.records import EncodedRow
from limbeck.training.rows import Rows
from limbeck.training.world import World


def with_offline_teacher(
    recipe: Recipe, method: Method, pair: Pair, *, world: World
) -> tuple[Pair, OfflineTeacher | None]:
    """The pair with the vocabulary that it has with the cache's teacher, and that teacher; as it is without a cache.

    Raises `DataError` for a cache that is damaged, unfinished or another teacher's, `VocabularyMismatch`, and
    `ConfigError` for a term that a `topk` cache cannot serve.
    """
    if recipe.cache.kind != "offline" or recipe.cache.path is None:
        return pair, None
    shards = Shards(Path(recipe.cache.path).expanduser())
    _check_terms(shards, method)
    _check_teacher(shards, recipe.models.teacher)
    vocabulary = compare_vocabularies(
        teacher_tokenizer=kept_tokenizer(shards.folder, shards.manifest),
        student_tokenizer=pair.tokenizer,
        teacher_width=int(shards.manifest.about["logits_width"]),
        student_width=logits_width(pair.student),
    )
    if shards.manifest.kind == "topk" and vocabulary_hash(vocabulary) != shards.manifest.about["vocabulary"]:
        raise DataError(
            f"the classes of the cache {shards.folder} are those that its teacher shares with another student's "
            "tokenizer.\n  Build a topk cache with this recipe, or a hidden one, which serves every student"
        )
    stops = stop_ids(
        pair.student,
        tokenizer=pair.tokenizer,
        vocabulary=vocabulary,
        chat_template_kwargs=pair.chat_template_kwargs,
    )
    fitted = dataclasses.replace(pair, vocabulary=vocabulary, stop_ids=stops)
    return fitted, OfflineTeacher(shards, vocabulary=vocabulary, device=world.device)


def kept_tokenizer(folder: Path, manifest: Manifest) -> Any:
    """The teacher's tokenizer, from a cache. Raises `DataError` where it, or the config beside it, is not whole."""
    # With a leading slash: a folder of two names that is not there would be asked of the hub.
    place = (folder / TEACHER).absolute()
    try:
        read_json(place / "config.json", error=ModelError)
        tokenizer = load_tokenizer(str(place))
    except ModelError as error:
        raise DataError(damaged_line(folder, TEACHER)) from error
    if tokenizer_hash(tokenizer) != manifest.about["tokenizer"]:
        raise DataError(damaged_line(folder, TEACHER))
    return tokenizer


def check_rows(offline: OfflineTeacher, rows: Rows, encoder: Encoder) -> str:
    """The line to print at the start. Raises `DataError` if a row of the run is not in the cache."""
    about, folder = offline.shards.manifest.about, offline.shards.folder
    encoded = rows.all_rows()
    names = encoded_names(encoded)
    missing = [
        row.id
        for name, row in zip(names, encoded, strict=True)
        if any(row.is_response[1:]) and name not in offline.shards
    ]
    if missing:
        told = [f"the text has the hash {text_hash(names)} here and {about['text']} there"]
        if about["template"] != encoder.template.kind:
            told.append(f"the template is {encoder.template.kind} here and {about['template']} there")
        raise DataError(
            f"{len(missing)} of {len(encoded)} rows are not in the teacher cache {folder}, the first is {missing[0]}."
            "\n  "
            + "\n  ".join(told)
            + "\n  Build it again with this recipe, or put data, template, max_prompt, max_length and tokenizer back"
        )
    size, teacher = offline.shards.manifest.num_bytes, about["teacher"]
    each = size / max(1, about["tokens"])
    line = f"teacher cache: {about['kind']}, {size / 1e9:.3g} GB in {folder}, {each:,.0f} bytes a token"
    return f"{line}, read by {teacher['name']} ({teacher['weights'][:8]})"


def encoded_names(rows: list[EncodedRow]) -> list[bytes]:
    """The name of each row as `Sequences` of it have it."""
    return [row_name(torch.tensor(row.tokens), torch.tensor(row.is_response, dtype=torch.bool)) for row in rows]


def vocabulary_hash(vocabulary: Vocabulary) -> str:
    """What tells one set of shared ids from another."""
    shared = b"" if vocabulary.shared is None else vocabulary.shared.cpu().numpy().tobytes()
    return hashlib.blake2b(repr(vocabulary.width).encode() + shared, digest_size=16).hexdigest()


def tokenizer_hash(tokenizer: Any) -> str:
    """A hash of a tokenizer's ids and their tokens."""
    return hashlib.blake2b(json.dumps(sorted(tokenizer.get_vocab().items())).encode(), digest_size=16).hexdigest()


def _check_terms(shards: Shards, method: Method) -> None:
    if shards.manifest.kind == "hidden":
        return
    objective = method.objective()
    said = f"{shards.folder} is a topk cache, which does not know the teacher's whole distribution"
    if objective.pair_terms:
        raise ConfigError(f"method.span compares whole distributions, but {said}.\n  {_WAY_OUT}")
    for term in (term for term in objective.terms.values() if term.needs_teacher):
        is_plain = isinstance(term, Match) and isinstance(term.target, TeacherTarget)
        if not isinstance(term, Match) or not is_plain or term.temperature_square_scaled != 1.0:
            raise ConfigError(
                f"method.token is not match with the teacher as target at temperature 1, but {said}.\n  {_WAY_OUT}"
            )
        if shards.manifest.about["draws"] is not None and not isinstance(term.divergence, ForwardKL):
            raise ConfigError(
                f"method.token.divergence is {type(term.divergence).__name__}, but {shards.folder} holds drawn classes,"
                f" which are unbiased for forward-kl only.\n  {_WAY_OUT}"
            )


_WAY_OUT = "Build a hidden cache (--kind hidden), or choose another term"


def _check_teacher(shards: Shards, named: str | None) -> None:
    """The teacher of the recipe, where it names one, must be the one that was read."""
    about = shards.manifest.about["teacher"]
    if named is None:
        return
    folder = Path(named).expanduser()
    found = folder_fingerprint(folder) if folder.is_dir() else None
    if found is not None and about["files"] is not None:
        if found != about["files"]:
            raise DataError(
                f"the cache {shards.folder} was read by {about['name']} ({about['weights'][:8]}), and the weights in "
                f"{named} are others.\n  Build the cache again, or name the teacher that was read (or null)"
            )
    elif named != about["name"]:
        raise DataError(
            f"models.teacher is '{named}', but the cache {shards.folder} was read by '{about['name']}'.\n"
            "  Build the cache again, or name the teacher that was read (or null)"
        )
