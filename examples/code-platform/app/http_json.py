"""JSON over HTTP with the standard library: what both servers share."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[int, Any]


class Refused(Exception):
    """Ends a request with this status and this explanation."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


@dataclass(frozen=True)
class Request:
    body: dict[str, Any] = field(default_factory=dict)
    authorization: str = ""

    @property
    def token(self) -> str:
        return self.authorization.removeprefix("Bearer ")


Routes = dict[str, Callable[[Request], Answer]]  # "METHOD /path" -> what answers it


def handler_of(routes: Routes) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.answer(*self.result())

        do_POST = do_GET

        def result(self) -> Answer:
            route = routes.get(f"{self.command} {self.path}")
            if route is None:
                return 404, {"error": f"there is only {', '.join(routes)}"}
            try:
                return route(self.request_read())
            except Refused as refused:
                return refused.status, {"error": str(refused)}

        def request_read(self) -> Request:
            text = self.rfile.read(int(self.headers["Content-Length"] or 0))
            try:
                body = json.loads(text or "{}")
            except ValueError:
                body = None
            if not isinstance(body, dict):
                raise Refused(400, "the body must be a JSON object")
            return Request(body, self.headers["Authorization"] or "")

        def answer(self, status: int, data: Any) -> None:
            body = json.dumps(data).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return Handler


def serve(routes: Routes) -> None:
    """Serve for ever, on the port that deploy-code gave; only for this machine, unless HOST says otherwise."""
    address = (os.environ.get("HOST", "127.0.0.1"), int(os.environ["PORT"]))
    print(f"listening on http://{address[0]}:{address[1]}")
    ThreadingHTTPServer(address, handler_of(routes)).serve_forever()
