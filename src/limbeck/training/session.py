"""From a recipe to everything a run needs: models, rows, method, optimizer, and what `auto` becomes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

import torch
from torch import nn

from limbeck.config import Recipe
from limbeck.config.uses import matches_teacher
from limbeck.data.loader import Loader
from limbeck.data.tokenizing import Encoder
from limbeck.evaluation.answers import Answerer, Decoding
from limbeck.methods import Method
from limbeck.models.decoders import TeacherDecoder
from limbeck.models.loading import Attention, checkpoint_activations
from limbeck.models.offline_teacher import OfflineTeacher
from limbeck.models.pair import Pair
from limbeck.models.sampling import Sampling
from limbeck.models.scoring import Scorer
from limbeck.models.teacher_cache import TeacherCache, TeacherReader
from limbeck.models.teaching import teacher_of
from limbeck.records import EncodedRow
from limbeck.seeds import Seeds
from limbeck.sequences.source import Collecting, Rollouts, Source
from limbeck.spans.packing import SpanFinder
from limbeck.training.caching import open_cache
from limbeck.training.distiller import Distiller
from limbeck.training.offline import check_rows, with_offline_teacher
from limbeck.training.optimizers import adamw, own_rates
from limbeck.training.pairing import load_pair, read_only_weights
from limbeck.training.resolving import resolve_auto, resolve_precision
from limbeck.training.rows import Rows, build_encoder, encode_rows
from limbeck.training.rundir import RunDirectory
from limbeck.training.sourcing import Desk, source_notes, with_source
from limbeck.training.spanning import open_finder, pairs_of, try_extractors
from limbeck.training.tracking import check_tracker
from limbeck.training.validation import Validator
from limbeck.training.world import World
from limbeck.types import Pairs, Sequences


@dataclass(kw_only=True)
class Session:
    """A run, ready to take steps."""

    recipe: Recipe
    method: Method
    pair: Pair
    world: World
    seeds: Seeds
    encoder: Encoder
    loader: Loader
    student: Scorer
    teacher: Scorer | None
    distiller: Distiller
    wrapped: nn.Module
    optimizer: torch.optim.Optimizer
    rollouts: Rollouts
    validator: Validator | None
    auto: dict[str, Any]
    notes: tuple[str, ...]
    finder: SpanFinder | None = None
    observed: tuple[EncodedRow, ...] = ()
    texts: Loader | None = None
    reader: Scorer | TeacherReader | None = None
    counted: Mapping[str, Any] = field(default_factory=dict)

    @property
    def cache(self) -> TeacherCache | None:
        """What is kept of the teacher's work in this run; `reader` then is it, and otherwise the teacher."""
        return self.reader if isinstance(self.reader, TeacherCache) else None

    @property
    def source(self) -> Source:
        """Where the rows of a step come from, built for this run."""
        return cast(Source, self.method.sequences)

    def pairs(self, sequences: Sequences) -> Pairs | None:
        """The pairs of a span term in these rows; None for a method without one."""
        return None if self.finder is None else pairs_of(sequences, self.finder)

    def rest_teacher(self) -> None:
        """The teacher is not asked for a while; one that is offloaded gives back its device's memory."""
        if self.teacher is not None:
            self.teacher.presence.leave()

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole run."""
        return int(self.auto["steps"])


def open_session(
    recipe: Recipe,
    *,
    world: World,
    rows: Iterable[Mapping[str, Any]] | None,
    recorded: Mapping[str, Any],
    resumed: RunDirectory | None = None,
) -> Session:
    """Load and build everything. `recorded` is what `auto` became at the first start, and `resumed` the directory that
    has what a span extractor learned then; both are used again on resume."""
    check_tracker(recipe.track)
    component = recipe.built_method()
    try_extractors(component.objective())
    precision = str(recorded.get("precision", resolve_precision(recipe, world)))
    attention = cast(Attention, recorded.get("attention", recipe.models.attention))
    is_matched = matches_teacher(component)
    is_there = is_matched and recipe.cache.kind != "offline"
    pair, pair_lines = load_pair(recipe, world, precision=precision, attention=attention, is_matched=is_there)
    pair, offline = with_offline_teacher(recipe, component, pair, world=world)
    seeds = Seeds(recipe.train.seed)
    encoder = build_encoder(recipe, pair)
    encoded = encode_rows(recipe, encoder, seeds=seeds, rows=rows, pair=pair)
    loader = Loader(encoded.train, seeds=seeds, pad_id=pair.pad_id)
    fresh = {"precision": precision, "rows": encoded.fingerprint(), **read_only_weights(pair, offline)}
    repeats = component.sequences.repeats if isinstance(component.sequences, Collecting) else 1
    auto, lines = resolve_auto(recipe, fresh, loader=loader, pair=pair, world=world, recorded=recorded, repeats=repeats)
    autocast = torch.bfloat16 if auto["precision"] == "bf16-mixed" else None
    student = Scorer.of(pair.student, vocabulary=pair.vocabulary, autocast=autocast)
    teacher = teacher_of(pair, autocast=autocast)
    if recipe.models.gradient_checkpointing:
        checkpoint_activations(pair.student)
    pair.student.train()
    objective = component.objective().built(
        vocabulary_size=pair.vocabulary.width,
        generator=torch.Generator().manual_seed(seeds.child("terms").integer()),
    )
    distiller = Distiller(student, objective, chunk=int(auto["chunk"]))
    distiller.terms.to(world.device)
    wrapped = world.wrap(distiller)
    optimizer = _optimizer(recipe, distiller, component=component, world=world)
    finder = open_finder(objective, tokenizer=pair.tokenizer, rows=encoded.train, world=world, resumed=resumed)
    rollouts = _rollouts(recipe, pair=pair, world=world, distiller=distiller, teacher=teacher, seeds=seeds, auto=auto)
    desk = Desk(
        recipe=recipe, world=world, pair=pair, teacher=teacher, encoder=encoder, rollouts=rollouts, asked=encoded.asked
    )
    method = with_source(component, desk, loader=loader, steps=int(auto["steps"]))
    reader, cache_lines = _reader(recipe, method, teacher=teacher, offline=offline, rows=encoded, desk=desk)
    if isinstance(reader, TeacherCache) and teacher is not None:
        rollouts = replace(rollouts, teacher=TeacherDecoder(teacher, cache=reader))
    validator = _validator(
        recipe, encoded, encoder=encoder, rollouts=rollouts, teacher=reader, finder=finder, auto=auto
    )
    notes = [*encoded.lines, *pair_lines, *lines, *filter(None, [pair.vocabulary.lines()]), *cache_lines]
    notes += _dense_notes(student, teacher)
    notes += source_notes(recipe, method.sequences, steps=int(auto["steps"]), observed=len(encoded.observed))
    return Session(
        recipe=recipe,
        method=method,
        pair=pair,
        world=world,
        seeds=seeds,
        encoder=encoder,
        loader=loader,
        student=student,
        teacher=teacher,
        distiller=distiller,
        wrapped=wrapped,
        optimizer=optimizer,
        rollouts=rollouts,
        validator=validator,
        auto=auto,
        notes=tuple(notes),
        finder=finder,
        observed=encoded.observed,
        texts=Loader(encoded.texts, seeds=seeds.child("plain-text"), pad_id=pair.pad_id) if encoded.texts else None,
        reader=reader,
        counted=encoded.counted,
    )


def _reader(
    recipe: Recipe,
    method: Method,
    *,
    teacher: Scorer | None,
    offline: OfflineTeacher | None,
    rows: Rows,
    desk: Desk,
) -> tuple[Scorer | TeacherReader | None, list[str]]:
    """Who reads rows for the teacher: itself, what is kept of it in this run, or a folder; with what is said of it."""
    if offline is not None:
        return offline, [check_rows(offline, rows, desk.encoder)]
    cache, lines = open_cache(recipe, method, teacher=teacher, rows=rows, world=desk.world)
    return teacher if cache is None else cache, lines


def _optimizer(recipe: Recipe, distiller: Distiller, *, component: Any, world: World) -> torch.optim.Optimizer:
    return adamw(
        distiller,
        weight_decay=recipe.train.weight_decay,
        betas=recipe.train.betas,
        sharded=world.strategy == "fsdp",
        own_rates=own_rates(component.objective().terms, distiller.terms, peak=recipe.train.learning_rate),
    )


def _dense_notes(student: Scorer, teacher: Scorer | None) -> list[str]:
    dense = [role for role, scorer in (("student", student), ("teacher", teacher)) if scorer and not scorer.split]
    return [f"the {role}'s logits are not its head applied to its hidden states: the dense path runs" for role in dense]


def _rollouts(
    recipe: Recipe,
    *,
    pair: Pair,
    world: World,
    distiller: Distiller,
    teacher: Scorer | None,
    seeds: Seeds,
    auto: Mapping[str, Any],
) -> Rollouts:
    sampling = recipe.sampling
    return Rollouts(
        decoder=world.decoder(distiller),
        sampling=Sampling(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            stop_ids=pair.stop_ids,
            banned_ids=frozenset(pair.vocabulary.dropped_student),
        ),
        max_new_tokens=sampling.max_new_tokens,
        max_length=recipe.data.max_length,
        group_rows=min(recipe.train.batch_rows // world.size, 4 * int(auto["micro_rows"])),
        pad_id=pair.pad_id,
        seeds=seeds,
        device=world.device,
        teacher=None if teacher is None else TeacherDecoder(teacher),
    )


def _validator(
    recipe: Recipe,
    encoded: Rows,
    *,
    encoder: Encoder,
    rollouts: Rollouts,
    teacher: Scorer | TeacherReader | None,
    finder: SpanFinder | None,
    auto: Mapping[str, Any],
) -> Validator | None:
    if not encoded.valid:
        return None
    answerer = Answerer(
        decoder=rollouts.decoder,
        encoder=encoder,
        stop_ids=rollouts.sampling.stop_ids,
        banned_ids=rollouts.sampling.banned_ids,
        pad_id=rollouts.pad_id,
        device=rollouts.device,
        max_length=recipe.data.max_length,
    )
    decoding = Decoding(
        temperature=recipe.sampling.temperature,
        top_p=recipe.sampling.top_p,
        top_k=recipe.sampling.top_k,
        max_new_tokens=recipe.sampling.max_new_tokens,
    )
    return Validator(
        rows=encoded.valid,
        examples=encoded.valid_examples,
        answerer=answerer if recipe.validate.metric == "rouge-l" else None,
        decoding=decoding,
        seed=recipe.validate.seed,
        teacher=teacher,
        micro_rows=int(auto["micro_rows"]),
        first_micro_rows=int(auto["micro_rows"]),
        finder=finder,
    )


def with_micro_rows(session: Session, micro_rows: int) -> None:
    """These micro-batches, and groups of rollouts and answers to match, from now on."""
    session.auto["micro_rows"] = micro_rows
    session.rollouts = replace(session.rollouts, group_rows=max(1, min(session.rollouts.group_rows, 4 * micro_rows)))
    if session.validator is not None:
        session.validator = replace(session.validator, micro_rows=micro_rows)
