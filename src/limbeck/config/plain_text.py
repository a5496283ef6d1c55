"""Plain text and the weight of its term: neither does anything without the other."""

from __future__ import annotations

from typing import Any

from limbeck.config.sections import DataSection


def unread_text(data: DataSection, *, method: Any, base: str) -> list[tuple[str, str]]:
    """The key and the error of a text that no weight asks for, or of a weight that has no text or stands alone."""
    from limbeck.losses.objective import PLAIN_TEXT

    weight = method.weights.plain_text
    if data.plain_text is not None and not weight:
        message = f"data.plain_text is '{data.plain_text}', which nothing reads: {base} has no weight for it"
        return [("data.plain_text", f"{message}; delete it, or set method.weights.plain_text")]
    if weight and data.plain_text is None:
        message = f"method.weights.plain_text is {weight:g}, but data.plain_text names no text"
        return [("method.weights.plain_text", f"{message}; name a .txt or .jsonl file, or set the weight to 0")]
    if set(method.objective().names) == {PLAIN_TEXT}:
        message = f"method.weights.plain_text is the only weight of {base}, so that its rows would be read for nothing"
        return [("method.weights.plain_text", f"{message}; raise method.weights.token")]
    return []
