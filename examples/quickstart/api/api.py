"""A guest book kept in the store: GET /guests lists who was here, POST /guests {"name": …} adds one."""

import json
import os
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock
from urllib.error import HTTPError
from urllib.request import Request, urlopen

STORE = os.environ["STORE_URL"]
one_writer = Lock()  # two guests at once must not forget one of them


def guests() -> list[str]:
    try:
        with urlopen(f"{STORE}/guests", timeout=2) as answer:
            return json.load(answer)
    except HTTPError as error:
        if error.code == HTTPStatus.NOT_FOUND:
            return []
        raise


def add(name: str) -> list[str]:
    with one_writer:
        names = [*guests(), name]
        urlopen(Request(f"{STORE}/guests", json.dumps(names).encode(), method="PUT"), timeout=2).close()
    return names


class Api(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path not in ("/guests", "/health"):
            return self.answer(404, {"error": "there are only /guests and /health"})
        try:
            self.answer(200, guests())  # healthy means able to work, so /health asks the store too
        except OSError as error:
            self.answer(503, {"error": f"the store does not answer: {error}"})

    def do_POST(self) -> None:
        try:
            name = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["name"]
        except (ValueError, TypeError, KeyError):
            self.answer(400, {"error": 'send {"name": "…"}'})
        else:
            self.answer(201, add(name))

    def answer(self, status: int, data: object) -> None:
        body = json.dumps(data).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    address = ("127.0.0.1", int(os.environ["PORT"]))
    print(f"api: http://{address[0]}:{address[1]}, store at {STORE}")
    ThreadingHTTPServer(address, Api).serve_forever()
