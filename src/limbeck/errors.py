"""What Limbeck raises: one root, and children that also inherit the built-in a caller would expect.

A message says what is wrong, the value, what is allowed, what to do, and where it was set. `exit_code` is what the
command line returns: 2 bad input, 1 failed, 75 stopped but resumable (sysexits.h: EX_TEMPFAIL).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class LimbeckError(Exception):
    """Root of everything Limbeck raises on purpose."""

    exit_code = 1

    def __str__(self) -> str:
        # KeyError quotes its argument, which would put "\n" escapes into multi-line messages.
        return "\n".join(str(argument) for argument in self.args)


class ConfigError(LimbeckError, ValueError):
    """A setting that is unknown, unused, of the wrong type or out of range."""

    exit_code = 2


class UnknownName(ConfigError, KeyError):
    """A name that is in no registry."""

    @classmethod
    def among(cls, what: str, name: str, known: Iterable[str], where: str = "") -> UnknownName:
        """The error for `name`, with the nearest known name as a suggestion.

        >>> print(UnknownName.among("divergence", "jds", ["jsd", "tvd"]))
        no divergence is called 'jds'. Did you mean 'jsd'?
          known: jsd, tvd
        """
        names = sorted(known)
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
        message = f"no {what} is called '{name}'." + (f" Did you mean '{near[0]}'?" if near else "")
        message += f"\n  known: {', '.join(names)}"
        return cls(message + (f"\n  set at {where}" if where else ""))


class DataError(LimbeckError, ValueError):
    """A data file or row that cannot be used."""

    exit_code = 2


class ModelError(LimbeckError, ValueError):
    """A model folder or identifier that cannot be loaded, or that Limbeck refuses to load."""

    exit_code = 2


class VocabularyMismatch(LimbeckError, ValueError):
    """Teacher and student number their tokens differently."""

    exit_code = 2


class NothingToLearn(LimbeckError, RuntimeError):
    """A step, or a whole data set, without one response token to learn from."""

    exit_code = 2


class NonFiniteLoss(LimbeckError, RuntimeError):
    """The loss or the gradient of a step is not a finite number."""


class FailureSignature(LimbeckError, RuntimeError):
    """A run under --strict that showed a failure signature; it is stopped, saved, and can be resumed.

    Not `Stopped`: whatever starts runs again on exit code 75 should not go past what a person has to look at.
    """


class CheckpointError(LimbeckError, RuntimeError):
    """A run directory or checkpoint that is corrupt, foreign, or does not fit this recipe."""

    exit_code = 2


class Stopped(LimbeckError, RuntimeError):
    """The run was stopped (Ctrl-C, a signal, no disk space, out of memory on several ranks) and can be resumed."""

    exit_code = 75


class LostRank(Stopped):
    """Another process of a distributed run has ended; the run can be resumed, this process can train no more."""
