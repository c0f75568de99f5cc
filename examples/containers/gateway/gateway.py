"""The one door: hands requests on to the auth service, and greets those who are logged in."""

import json
import os
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

AUTH = os.environ["AUTH_URL"]
GREETING = "You are in."
HANDED_ON = ("GET /health", "POST /register", "POST /login", "POST /logout")

Answer = tuple[int, dict[str, str]]


class Gateway(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        status, data = self.result()
        body = json.dumps(data).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def result(self) -> Answer:
        route = f"{self.command} {self.path}"
        if route in HANDED_ON:
            return self.ask_auth(self.path)
        if route == "GET /me":
            status, data = self.ask_auth("/who")
            return (status, {**data, "greeting": GREETING}) if status == 200 else (status, data)
        return 404, {"error": f"there is only GET /me, {', '.join(HANDED_ON)}"}

    def ask_auth(self, path: str) -> Answer:
        body = self.rfile.read(int(self.headers["Content-Length"] or 0)) or None
        headers = {"Authorization": self.headers["Authorization"] or "", "Content-Type": "application/json"}
        try:
            with urlopen(Request(AUTH + path, body, headers, method=self.command), timeout=5) as answer:
                return answer.status, json.load(answer)
        except HTTPError as refusal:
            with refusal:
                return refusal.code, json.load(refusal)
        except (URLError, TimeoutError) as error:
            return 502, {"error": f"the auth service does not answer: {error}"}


if __name__ == "__main__":
    server = ThreadingHTTPServer(("", int(os.environ["PORT"])), Gateway)
    print(f"listening on port {server.server_port}")
    with suppress(KeyboardInterrupt):
        server.serve_forever()
