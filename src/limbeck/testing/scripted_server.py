"""An OpenAI-compatible server on this machine that says what a script says, for tests of what asks over HTTP."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

Body = Mapping[str, Any]


class ScriptedServer:
    """Answers `POST {url}/chat/completions` with `script(body)`, on a free port of 127.0.0.1; a context.

    The script is given the request's JSON and returns the answer's text. `bodies` are all requests, in the order of
    their coming. Tokens are counted as words. Knows no stream and no other path: those are 404.

    >>> import httpx
    >>> with ScriptedServer(lambda body: body["messages"][-1]["content"].upper()) as server:
    ...     asked = {"model": "any", "messages": [{"role": "user", "content": "hello"}]}
    ...     httpx.post(f"{server.url}/chat/completions", json=asked).json()["choices"][0]["message"]["content"]
    'HELLO'
    """

    def __init__(self, script: Callable[[Body], str]) -> None:
        self.bodies: list[Body] = []
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(script, self.bodies.append))
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)

    @property
    def url(self) -> str:
        """The address that an `Endpoint` takes; it ends in /v1."""
        return f"http://127.0.0.1:{self._http.server_port}/v1"

    def __enter__(self) -> ScriptedServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


def _handler(script: Callable[[Body], str], seen: Callable[[Body], None]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            if not self.path.endswith("/v1/chat/completions"):
                self._send(404, {"error": {"message": f"there is no {self.path}"}})
                return
            seen(body)
            self._send(200, _completion(body, script(body)))

        def _send(self, status: int, values: dict[str, Any]) -> None:
            data = json.dumps(values).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return Handler


def _completion(body: Body, text: str) -> dict[str, Any]:
    prompt = sum(len(str(turn["content"]).split()) for turn in body["messages"])
    usage = {"prompt_tokens": prompt, "completion_tokens": len(text.split())}
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return {"object": "chat.completion", "model": body.get("model"), "choices": [choice], "usage": usage}
