"""`limbeck explain`: what a method is made of, part by part, and what of it is a reading of its paper."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from limbeck.config import Recipe
from limbeck.config.checks import check_keys, method_error
from limbeck.config.reading import read_recipe
from limbeck.config.sections import SECTIONS
from limbeck.errors import ConfigError, UnknownName
from limbeck.inspection.formulas import PLAIN_TEXT_FORMULA, Formula, formulas_of, loss_formula, reduction_formulas
from limbeck.inspection.layout import text_of
from limbeck.inspection.papers import PAPERS
from limbeck.inspection.readings import Paper, Reading, of_value
from limbeck.losses.match import Likelihood
from limbeck.methods import CUSTOM, METHODS, PRESETS, Method, from_config, to_config

_LIKELIHOODS = {"supervised": "likelihood of the reference", "plain_text": "likelihood of plain text"}


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One field: its key in a recipe, its value as a recipe holds it (a component by its kind), and how it stands to
    the paper.

    `is_given`: whether there is a value; a recipe that is not there yet has none for a key without default. `was` is
    the value in the base where that has another (`is_changed`).
    """

    name: str
    key: str
    value: Any
    reading: Reading | None = None
    is_given: bool = True
    is_changed: bool = False
    was: Any = None


@dataclass(frozen=True, kw_only=True)
class Part:
    """A component: its formulas, its fields, the components inside it, and what is read beside its fields.

    The entry's value is its kind in a recipe, None where there is none. `meaning` is the first line about a component
    without formula.
    """

    entry: Entry
    meaning: str = ""
    formulas: tuple[Formula, ...] = ()
    fields: tuple[Entry, ...] = ()
    parts: tuple[Part, ...] = ()
    beside: tuple[Reading, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """A method, explained: its paper, its loss, its parts, and the settings around it that the paper names.

    `base` is the method or preset that changes are marked against, "" where there is none.
    """

    title: str
    base: str
    paper: str
    meaning: str
    loss: Formula
    parts: tuple[Part, ...]
    settings: tuple[Entry, ...]

    def text(self, width: int = 80) -> str:
        """Plain text without control characters, no line longer than `width` (which is at least 40)."""
        return text_of(self, width=max(40, width))

    def values(self) -> dict[str, Any]:
        """The same as plain values, for JSON."""
        plain: dict[str, Any] = _plain(self)
        return plain


def explain(method_or_recipe: Method | Recipe | Path | str) -> Explanation:
    """What a method, a preset, a recipe or a run is made of, and how each field stands to the method's paper.

    Text is a name of `limbeck.methods.PRESETS`, or else a recipe file or a run's folder. Of a recipe, the `method`
    section is explained, and what it changes against its `base` is marked; of a preset, what it changes against its
    method. Raises `UnknownName` for a name that is neither, and `ConfigError` for a recipe that cannot be read.

    >>> explanation = explain("gkd:distillm")
    >>> explanation.loss.text, [part.entry.value for part in explanation.parts]
    ('1 · token', ['mixture', None, 'match', None, None, None, 'token'])
    >>> explanation.title
    'gkd:distillm, a preset of gkd'
    """
    if isinstance(method_or_recipe, Method):
        same = [name for name, preset in PRESETS.items() if preset() == method_or_recipe]
        return _explain_named(same[0]) if same else _explained(method_or_recipe, title="a method of one's own")
    if isinstance(method_or_recipe, Recipe):
        base = str(method_or_recipe.method["base"])
        values = method_or_recipe.values()
        return _explained(method_or_recipe.built_method(), title="a recipe", base=base, settings=values)
    if isinstance(method_or_recipe, str) and method_or_recipe in PRESETS:
        return _explain_named(method_or_recipe)
    if isinstance(method_or_recipe, str) and not _is_place(method_or_recipe):
        unknown = UnknownName.among("method or preset", method_or_recipe, PRESETS)
        raise UnknownName(f"{unknown}\n  a recipe is named by its file or folder: recipe.yaml, ./recipe, runs/mine")
    return _explain_file(Path(method_or_recipe))


def _is_place(text: str) -> bool:
    return Path(text).suffix in (".yaml", ".yml") or len(Path(text).parts) != 1 or Path(text).exists()


def _explain_named(name: str) -> Explanation:
    method = name.partition(":")[0]
    is_preset = name not in METHODS and method in METHODS
    title = f"{name}, a preset of {method}" if is_preset else name
    return _explained(PRESETS[name](), title=title, base=method if is_preset else "", paper=PAPERS.get(method))


def _explain_file(path: Path) -> Explanation:
    draft = read_recipe(path / "recipe.yaml" if path.is_dir() else path)
    check_keys(draft)
    section = draft.values.get("method", {})
    try:
        method = from_config(section, allow_import=not draft.is_recorded)
    except ConfigError as error:
        raise method_error(error, draft) from error
    return _explained(method, title=str(path), base=str(section["base"]), settings=draft.values)


def _explained(
    method: Method,
    *,
    title: str,
    base: str = "",
    paper: Paper | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Explanation:
    base = "" if base == CUSTOM else base
    paper = paper or PAPERS.get(base.partition(":")[0])
    composer = _Composer(paper=paper)
    meaning = inspect.getdoc(METHODS[base or title]) if (base or title) in METHODS else None
    return Explanation(
        title=title,
        base=base,
        paper="" if paper is None else f"{paper.name}, {paper.source}",
        meaning=(meaning or "").partition("\n")[0],
        loss=_loss(method),
        parts=composer.parts(method, PRESETS[base]() if base else None),
        settings=composer.settings(settings or {}),
    )


def _loss(method: Method) -> Formula:
    weights = method.weights
    span = 0.0 if method.span is None else weights.span
    terms = {"supervised": weights.supervised, "token": weights.token, "span": span, "plain_text": weights.plain_text}
    return loss_formula(terms)


@dataclass(frozen=True, kw_only=True)
class _Composer:
    """Entries and parts, each beside the same of the base, where there is one (None: there is none)."""

    paper: Paper | None

    def parts(self, method: Method, base: Method | None) -> tuple[Part, ...]:
        found = [self._slot(method, base, slot) for slot in ("sequences", "revision", "token", "span")]
        reduction = self._entry(method, base, "reduction", "method.reduction")
        lines = reduction_formulas(method.reduction, has_spans=method.span is not None)
        beside = [self._likelihood(method, base, term, value) for term, value in _LIKELIHOODS.items()]
        return (*found, *beside, Part(entry=reduction, formulas=lines))

    def _slot(self, method: Method, base: Method | None, slot: str) -> Part:
        """A field of the method, the weight of its term among the component's fields."""
        part = self._part(method, base, slot, f"method.{slot}")
        is_weighted = slot in ("token", "span") and getattr(method, slot) is not None
        if not is_weighted:
            return part
        return dataclasses.replace(part, fields=(*part.fields, self._weight(method, base, slot)))

    def _likelihood(self, method: Method, base: Method | None, term: str, value: str) -> Part:
        """A term beside the method's own, which is there where it has a weight."""
        weight = self._weight(method, base, term)
        if not getattr(method.weights, term):
            return Part(entry=Entry(name=term, key=weight.key, value=None), fields=(weight,))
        is_read = term == "supervised"
        return Part(
            entry=Entry(name=term, key=weight.key, value=value),
            formulas=formulas_of(Likelihood()) if is_read else (PLAIN_TEXT_FORMULA,),
            fields=(weight,),
            beside=self._beside(method.weights) if is_read else (),
        )

    def _weight(self, method: Method, base: Method | None, term: str) -> Entry:
        entry = self._entry(method.weights, None if base is None else base.weights, term, f"method.weights.{term}")
        return dataclasses.replace(entry, name="weight")

    def _part(self, owner: Any, base_owner: Any, name: str, key: str) -> Part:
        component = getattr(owner, name)
        entry = self._entry(owner, base_owner, name, key)
        if component is None:
            return Part(entry=entry)
        base = getattr(base_owner, name, None)
        base = base if type(base) is type(component) else None
        names = [part.name for part in dataclasses.fields(component)]
        inside = [each for each in names if _is_component(getattr(component, each))]
        formulas = formulas_of(component)
        return Part(
            entry=entry,
            meaning="" if formulas else (inspect.getdoc(component) or "").partition("\n")[0],
            formulas=formulas,
            fields=tuple(self._entry(component, base, each, f"{key}.{each}") for each in names if each not in inside),
            parts=tuple(self._part(component, base, each, f"{key}.{each}") for each in inside),
            beside=self._beside(component),
        )

    def _entry(self, owner: Any, base_owner: Any, name: str, key: str) -> Entry:
        value = getattr(owner, name)
        stated = _stated(value)
        was = stated if base_owner is None else _stated(getattr(base_owner, name))
        reading = None if self.paper is None else self.paper.reading(type(owner), name, value)
        is_changed = was != stated
        return Entry(
            name=name, key=key, value=stated, reading=reading, is_changed=is_changed, was=was if is_changed else None
        )

    def _beside(self, component: object) -> tuple[Reading, ...]:
        return () if self.paper is None else self.paper.beside.get(type(component), ())

    def settings(self, values: Mapping[str, Any]) -> tuple[Entry, ...]:
        """What the paper says about the rest of a recipe, at this recipe's values or the defaults."""
        found = []
        for key, readings in () if self.paper is None else self.paper.settings.items():
            section, _, name = key.partition(".")
            default = next(each.default for each in dataclasses.fields(SECTIONS[section]) if each.name == name)
            value = values.get(section, {}).get(name, default)
            is_given = value is not dataclasses.MISSING
            reading = of_value(readings, value)
            found.append(
                Entry(name=key, key=key, value=value if is_given else None, reading=reading, is_given=is_given)
            )
        return tuple(found)


def _is_component(value: object) -> bool:
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def _stated(value: Any) -> Any:
    """A value as a recipe holds it; a component by its kind."""
    return to_config(value)["kind"] if _is_component(value) else value


def _plain(value: Any) -> Any:
    if isinstance(value, Formula):
        return value._asdict()
    if dataclasses.is_dataclass(value):
        return {part.name: _plain(getattr(value, part.name)) for part in dataclasses.fields(value)}
    return [_plain(each) for each in value] if isinstance(value, tuple) else value
