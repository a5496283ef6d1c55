from __future__ import annotations

import pickle

import pytest

from limbeck import errors
from limbeck.errors import LimbeckError, UnknownName

CODES = {
    "LimbeckError": 1,
    "ConfigError": 2,
    "UnknownName": 2,
    "DataError": 2,
    "ModelError": 2,
    "VocabularyMismatch": 2,
    "NothingToLearn": 2,
    "NonFiniteLoss": 1,
    "FailureSignature": 1,
    "CheckpointError": 2,
    "Stopped": 75,
    "LostRank": 75,
}


def classes() -> dict[str, type[LimbeckError]]:
    found = {name: value for name, value in vars(errors).items() if isinstance(value, type)}
    return {name: value for name, value in found.items() if issubclass(value, LimbeckError)}


def test_each_error_has_its_exit_code() -> None:
    assert {name: error.exit_code for name, error in classes().items()} == CODES


@pytest.mark.parametrize("error", classes().values(), ids=classes())
def test_an_error_is_also_the_built_in_a_caller_expects_and_survives_a_process_border(error: type) -> None:
    raised = error("line one\n  line two")
    assert str(raised) == "line one\n  line two"
    assert error is LimbeckError or isinstance(raised, (ValueError, RuntimeError))
    copy = pickle.loads(pickle.dumps(raised))
    assert (type(copy), str(copy)) == (error, str(raised))


def test_a_suggestion_is_made_only_where_a_name_is_near() -> None:
    far = str(UnknownName.among("method", "quantum", ["sft", "kd"]))
    assert far == "no method is called 'quantum'.\n  known: kd, sft"
    near = str(UnknownName.among("method", "sftt", ["sft", "kd"], where="recipe.yaml line 3"))
    assert near == "no method is called 'sftt'. Did you mean 'sft'?\n  known: kd, sft\n  set at recipe.yaml line 3"
