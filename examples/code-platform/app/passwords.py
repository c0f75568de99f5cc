"""Passwords as salted scrypt hashes: 16 MB and some 60 ms for each guess."""

import hashlib
import os
from hmac import compare_digest

SALT_BYTES = 16


def hashed(password: str, salt: bytes | None = None) -> bytes:
    salt = salt or os.urandom(SALT_BYTES)
    return salt + hashlib.scrypt(password.encode(), salt=salt, n=2**14, r=8, p=1)


NOBODY = hashed("")  # compared with where there is no such user: both refusals take as long


def matches(password: str, stored: bytes) -> bool:
    return compare_digest(stored, hashed(password, stored[:SALT_BYTES]))
