"""What is said of a model that cannot be loaded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from limbeck.errors import ModelError
from limbeck.models.packaged import PACKAGED


def ways() -> str:
    """How a model may be named."""
    return f"give a local folder, a hub id (owner/name) or a packaged model: {', '.join(PACKAGED)}"


@contextmanager
def told(name: str, what: str = "model") -> Iterator[None]:
    """What a library says of a file that it cannot read, as a `ModelError` that names the folder."""
    try:
        yield
    except MemoryError:
        raise
    # What a damaged file leads to is written down nowhere; some libraries raise plain `Exception`.
    except Exception as error:
        lines = str(error).strip().splitlines()
        reason = " ".join(line.strip() for line in lines[: 2 if lines[0].endswith(":") else 1]) if lines else ""
        if not isinstance(error, OSError | ValueError | RuntimeError):
            reason = f"{type(error).__name__}: {reason}"
        advice = ways()
        if isinstance(error, ImportError) and "ttention" in str(error):
            advice = "install the package that it names, or set models.attention=auto"
        if "trust_remote_code" in str(error):
            reason = "it needs code from its own repository"
            advice = "Limbeck runs no code from a model repository; choose a model that transformers itself knows"
        raise ModelError(f"the {what} '{name}' cannot be loaded: {reason}\n  {advice}") from error
