"""`limbeck doctor`: what a recipe would run into, found before it runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from limbeck.config import Recipe
from limbeck.errors import LimbeckError
from limbeck.preflight.data_checks import data_findings, read_data
from limbeck.preflight.findings import Diagnosis, failed
from limbeck.preflight.machine_checks import machine_findings, plan_findings
from limbeck.preflight.pair_checks import pair_findings


def doctor(recipe: Recipe | Mapping[str, Any] | Path | str, *overrides: str, weights: bool = True) -> Diagnosis:
    """Look at everything that a run of the recipe depends on; returns what was found, with what to do.

    First what needs no weights: vocabularies and templates of the pair, padding, lengths and contexts, data, overlap
    of training, validation and test rows, disk, memory, threads. Then, with `weights` and unless an error came before,
    both models are loaded and read a few rows. Nothing is written. Raises `ConfigError` for a recipe that cannot be
    read; whatever else is wrong is a finding.
    """
    whole = Recipe.load(recipe, list(overrides))
    data, unread = read_data(whole)
    findings = [*pair_findings(whole), *unread]
    findings += data_findings(whole, data) if data is not None else []
    findings += machine_findings(whole)
    findings += plan_findings(whole, data)
    first = Diagnosis(findings=tuple(findings))
    if not weights:
        return Diagnosis(findings=first.findings, skipped="the weights, as asked")
    if first.worst == "error":
        return Diagnosis(findings=first.findings, skipped="the weights, because of the errors above")
    from limbeck.preflight.weight_checks import weight_findings

    try:
        more = weight_findings(whole, data)
    except (LimbeckError, MemoryError) as error:
        more = [failed("weights", error)]
    return Diagnosis(findings=(*first.findings, *more))
