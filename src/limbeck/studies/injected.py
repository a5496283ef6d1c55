"""The study `injected-errors`: which detector finds errors of known kind and place. Only its stages are trained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from limbeck.errors import ConfigError
from limbeck.studies.builtin import STUDIES
from limbeck.studies.places import Places
from limbeck.studies.resuming import same_command_goes_on
from limbeck.studies.staging import build_stage

_ROWS, _MAX_PROMPT, _NEW_TOKENS = 64, 128, 48


def run_injected_errors(places: Places, *, seed: int = 0, say: Callable[[str], None] = print) -> Path:
    """Inject errors into rows of Dolly and see who finds them, with the teacher and the start of protocol `small`.

    Returns the folder of its rows and table. Raises `ConfigError` where no `root` is given.
    """
    # It loads torch.
    from limbeck.studies.detector_study import injected_errors

    study = STUDIES["detectors"]()
    if places.root is None:
        raise ConfigError("injected-errors reads Dolly; name the folder of the data sets: --root DIR")
    out = places.rows / "injected-errors"
    with same_command_goes_on():
        teacher, start = (build_stage(study, study.stage(name), places, say=say) for name in ("teacher", "start"))
        injected_errors(
            teacher=teacher,
            student=start,
            data="dolly",
            root=places.root,
            out=out,
            rows=_ROWS,
            detectors=None,
            seed=seed,
            max_prompt=_MAX_PROMPT,
            max_new_tokens=_NEW_TOKENS,
            say=say,
        )
    return out
