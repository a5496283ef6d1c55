from __future__ import annotations

import httpx
import pytest

from limbeck.testing import ScriptedServer


def test_it_answers_and_remembers() -> None:
    with ScriptedServer(lambda body: f"{body['messages'][-1]['content']}!") as server:
        body = {"model": "m", "messages": [{"role": "user", "content": "one two"}]}
        found = httpx.post(f"{server.url}/chat/completions", json=body).json()
        assert found["choices"][0]["message"] == {"role": "assistant", "content": "one two!"}
        assert found["usage"] == {"prompt_tokens": 2, "completion_tokens": 2}
        assert server.bodies == [body]
        assert httpx.post(f"{server.url}/embeddings", json=body).status_code == 404
        assert len(server.bodies) == 1
    with pytest.raises(httpx.ConnectError):
        httpx.post(f"{server.url}/chat/completions", json=body)
