"""The one door: what needs no user goes to the auth service, everything else only with a valid token."""

import json
import os
from urllib.error import HTTPError, URLError
from urllib.request import Request as Outgoing
from urllib.request import urlopen

from http_json import Answer, Refused, Request, serve

AUTH = os.environ["AUTH_URL"]


def ask_auth(method: str, path: str, request: Request) -> Answer:
    """Hand a request over to the auth service, and its answer back as it is."""
    body = json.dumps(request.body).encode() if method == "POST" else None
    headers = {"Authorization": request.authorization, "Content-Type": "application/json"}
    try:
        with urlopen(Outgoing(AUTH + path, body, headers, method=method), timeout=5) as answer:
            return answer.status, json.load(answer)
    except HTTPError as refusal:
        with refusal:
            return refusal.code, json.load(refusal)
    except (URLError, TimeoutError) as error:
        raise Refused(502, f"the auth service does not answer: {error}") from error


def user_of(request: Request) -> str:
    status, answer = ask_auth("GET", "/who", request)
    if status != 200:
        raise Refused(status, answer["error"])
    return answer["email"]


def me(request: Request) -> Answer:
    return 200, {"email": user_of(request), "greeting": "You are in."}


if __name__ == "__main__":
    serve(
        {
            "POST /register": lambda request: ask_auth("POST", "/register", request),
            "POST /login": lambda request: ask_auth("POST", "/login", request),
            "POST /logout": lambda request: ask_auth("POST", "/logout", request),
            "GET /me": me,
            "GET /health": lambda request: ask_auth("GET", "/health", request),
        }
    )
