"""A receiving process for payload tests: its namespace and travel table live on between requests.

python transfer_peer.py       reads pickled (kind, ...) requests from stdin, answers on stdout
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import traceback
from typing import Any

from quarterdeck.protocol.blob import Blob
from quarterdeck.transfer.pickler import TravelTable, dumps, loads
from quarterdeck.transfer.shared_buffers import map_buffers, pack


class Peer:
    """The sender's side: a fresh interpreter that installs payloads and runs code."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def _ask(self, *request: Any) -> Any:
        assert self._process.stdin
        assert self._process.stdout
        pickle.dump(request, self._process.stdin)
        self._process.stdin.flush()
        good, answer = pickle.load(self._process.stdout)
        if not good:
            raise RuntimeError(answer)
        return answer

    def send(self, values: dict[str, object], namespace: dict[str, object], **options: Any) -> list[str]:
        """Install values; returns the names that the peer's namespace gained or lost besides them."""
        pickled = dumps(values, namespace, **options)
        blob, spans = pack(pickled.buffers)
        path = f"/proc/{os.getpid()}/fd/{blob.fileno()}" if blob is not None else os.devnull
        return self._ask("install", pickled.data, spans, path)

    def run(self, code: str) -> None:
        self._ask("run", code)

    def get(self, expression: str) -> Any:
        """repr()-able, picklable values only."""
        return self._ask("get", expression)

    def dropped(self) -> list[int]:
        return self._ask("dropped")

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(10)


def _serve() -> None:
    namespace = sys.modules["__main__"].__dict__
    table = TravelTable()
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    while True:
        try:
            request = pickle.load(requests)
        except EOFError:
            return
        try:
            answer = (True, _answer(request, namespace, table))
        except BaseException:
            answer = (False, traceback.format_exc())
        pickle.dump(answer, answers)
        answers.flush()


def _answer(request: tuple[Any, ...], namespace: dict[str, Any], table: TravelTable) -> Any:
    match request:
        case "install", data, spans, path:
            buffers = map_buffers(Blob(os.open(path, os.O_RDONLY)), spans)
            before = dict(namespace)
            values = loads(data, buffers, namespace, table)
            changed = [
                n for n in {*before, *namespace} if before.get(n, before) is not namespace.get(n, namespace)
            ]
            namespace.update(values)
            return changed
        case "run", code:
            exec(code, namespace)
            return None
        case "get", expression:
            return eval(expression, namespace)
        case ("dropped",):
            return table.take_dropped()
    raise ValueError(request)


if __name__ == "__main__":
    _serve()
