"""Who are you? Users live in PostgreSQL, sessions in Redis, and a signed token (JWT) names both."""

import os
import secrets
import time

import jwt
import psycopg
import redis
from http_json import Answer, Refused, Request, serve
from passwords import NOBODY, hashed, matches

SECRET = os.environ["JWT_SECRET"]
SESSION_SECONDS = 3600
REQUIRED = ["exp", "sub", "sid"]  # a token without one of them is none of ours
sessions = redis.Redis.from_url(os.environ["REDIS_URL"], decode_responses=True, socket_timeout=2)


def database() -> psycopg.Connection:
    return psycopg.connect(os.environ["DATABASE_URL"], autocommit=True, connect_timeout=2)


def register(request: Request) -> Answer:
    email, password = credentials(request)
    with database() as db:
        try:
            db.execute("INSERT INTO users (email, password) VALUES (%s, %s)", (email, hashed(password)))
        except psycopg.errors.UniqueViolation:
            raise Refused(409, f"{email} is already registered") from None
    return 201, {"email": email}


def login(request: Request) -> Answer:
    email, password = credentials(request)
    with database() as db:
        user = db.execute("SELECT password FROM users WHERE email = %s", (email,)).fetchone()
    if not matches(password, user[0] if user else NOBODY):
        raise Refused(401, "no such user, or another password")
    return 200, {"token": new_session(email)}


def new_session(email: str) -> str:
    session, now = secrets.token_urlsafe(16), int(time.time())
    sessions.set(f"session:{session}", email, ex=SESSION_SECONDS)
    claims = {"sub": email, "sid": session, "iat": now, "exp": now + SESSION_SECONDS}
    return jwt.encode(claims, SECRET, algorithm="HS256")


def who(request: Request) -> Answer:
    return 200, {"email": claims_of(request)["sub"]}


def logout(request: Request) -> Answer:
    sessions.delete(f"session:{claims_of(request)['sid']}")
    return 200, {}


def claims_of(request: Request) -> dict[str, str]:
    """What the token says, if we signed it, it has not expired, and nobody has logged out with it."""
    try:
        claims = jwt.decode(request.token, SECRET, algorithms=["HS256"], options={"require": REQUIRED})
    except jwt.InvalidTokenError as error:
        raise Refused(401, f"log in first: {error}") from None
    if not sessions.exists(f"session:{claims['sid']}"):
        raise Refused(401, "this session is over")
    return claims


def credentials(request: Request) -> tuple[str, str]:
    email, password = request.body.get("email"), request.body.get("password")
    if not (isinstance(email, str) and isinstance(password, str) and "@" in email and password):
        raise Refused(400, 'send {"email": "…", "password": "…"}')
    return email.lower(), password


def health(_: Request) -> Answer:
    """Healthy means able to work: both databases answer."""
    try:
        sessions.ping()
        with database() as db:
            db.execute("SELECT 1 FROM users LIMIT 1")
    except (redis.RedisError, psycopg.Error) as error:
        raise Refused(503, f"{type(error).__name__}: {error}") from error
    return 200, {"status": "ok"}


if __name__ == "__main__":
    serve(
        {
            "POST /register": register,
            "POST /login": login,
            "POST /logout": logout,
            "GET /who": who,
            "GET /health": health,
        }
    )
