"""A key-value store over HTTP: PUT and GET of text under /KEY, one file per key."""

import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote, unquote

ENTRIES = Path(os.environ["STORE_DIR"])


def file_of(key: str) -> Path:
    """Quoted, so that no key leads out of the folder."""
    return ENTRIES / f"{quote(key, safe='')}.txt"


def write(path: Path, content: bytes) -> None:
    """All or nothing: a store that is killed half way keeps the old text."""
    new = path.with_suffix(".new")
    new.write_bytes(content)
    new.replace(path)


class Store(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/health":
            return self.answer(200, b"ok")
        try:
            self.answer(200, file_of(self.key).read_bytes())
        except FileNotFoundError:
            self.answer(404)

    def do_PUT(self) -> None:
        write(file_of(self.key), self.rfile.read(int(self.headers["Content-Length"])))
        self.answer(204)

    @property
    def key(self) -> str:
        return unquote(self.path.removeprefix("/"))

    def answer(self, status: int, body: bytes = b"") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    ENTRIES.mkdir(parents=True, exist_ok=True)
    address = ("127.0.0.1", int(os.environ["PORT"]))
    print(f"store: http://{address[0]}:{address[1]}, entries in {ENTRIES}")
    ThreadingHTTPServer(address, Store).serve_forever()
