"""Tells whether two mathematical texts are equal: a program of its own, line by line from stdin to stdout.

It is run as a file, apart from the package, and killed where it hangs. Texts go through math-verify's LaTeX grammar
only; its other road would hand them to a parser that evaluates Python.
"""

import json
import os
import sys
import threading
from typing import Any

_MEMORY = 4 << 30
_ORPHANED_AFTER = 60.0


def main() -> None:
    """Say whether it can work, then answer each line `{"gold", "answer"}` by `{"verdict"}` or `{"failed"}`."""
    # What libraries print must not come between the answers.
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    _limit_memory()
    try:
        equal = _load()
    except ImportError as error:
        print(json.dumps({"missing": str(error)}), file=out, flush=True)
        return
    print(json.dumps({"ready": True}), file=out, flush=True)
    for line in sys.stdin:
        # Whoever asked kills a worker that hangs; this one is for when nobody is left to do so.
        orphaned = threading.Timer(_ORPHANED_AFTER, os._exit, (3,))
        orphaned.daemon = True
        orphaned.start()
        try:
            asked = json.loads(line)
            said = {"verdict": equal(asked["gold"], asked["answer"])}
        except Exception as error:
            said = {"failed": f"{type(error).__name__}: {error}"[:200]}
        orphaned.cancel()
        print(json.dumps(said), file=out, flush=True)


def _load() -> Any:
    from math_verify import LatexExtractionConfig, parse, verify

    grammar = [LatexExtractionConfig(boxed_match_priority=0)]

    def read(text: str) -> Any:
        # Its own timeouts use a signal and miss; the process is killed instead.
        return parse(f"\\boxed{{{text}}}", extraction_config=grammar, fallback_mode="no_fallback", parsing_timeout=None)

    def equal(gold: str, answer: str) -> str:
        read_gold, read_answer = read(gold), read(answer)
        if not read_gold or not read_answer:
            return "unparsed"
        return "equal" if verify(read_gold, read_answer, timeout_seconds=None) else "different"

    return equal


def _limit_memory() -> None:
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    except (ImportError, ValueError, OSError):
        return


if __name__ == "__main__":
    main()
