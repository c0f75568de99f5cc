"""The page: shows the guest book and takes new entries."""

import json
import os
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs
from urllib.request import Request, urlopen

API = os.environ["API_URL"]

PAGE = """<!doctype html>
<meta charset="utf-8">
<title>Guest book</title>
<h1>Guest book</h1>
<ol>{entries}</ol>
<form method="post"><input name="name" placeholder="Your name" required> <button>I was here</button></form>
"""


def page() -> bytes:
    with urlopen(f"{API}/guests", timeout=2) as answer:
        names = json.load(answer)
    return PAGE.format(entries="".join(f"<li>{escape(name)}</li>" for name in names)).encode()


def sign(name: str) -> None:
    urlopen(Request(f"{API}/guests", json.dumps({"name": name}).encode()), timeout=2).close()


class Web(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path not in ("/", "/health"):
            return self.answer(404, b"no such page")
        try:
            self.answer(200, page())
        except OSError as error:
            self.answer(503, f"The guest book is closed: {error}".encode())

    def do_POST(self) -> None:
        form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        for name in form.get("name", []):
            sign(name)
        self.answer(303, b"", Location="/")  # so that reloading the page does not sign again

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    address = ("127.0.0.1", int(os.environ["PORT"]))
    print(f"web: http://{address[0]}:{address[1]}, api at {API}")
    ThreadingHTTPServer(address, Web).serve_forever()
