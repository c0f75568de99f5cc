"""TLS to an engine, from the folder that Docker keeps certificates in: ``ca.pem``, ``cert.pem``, ``key.pem``."""

from __future__ import annotations

import os
import ssl

from deploy_code.drivers.engine.errors import EngineGoneError


def tls_context(folder: str, *, verify: bool) -> ssl.SSLContext:
    """For a client. Files that are not there are done without: no ``ca.pem`` means the system's authorities.

    Raises EngineGoneError (E014) where one cannot be read.
    """
    authority, certificate, key = (os.path.join(folder, name) for name in ("ca.pem", "cert.pem", "key.pem"))
    try:
        context = ssl.create_default_context(cafile=authority if os.path.exists(authority) else None)
        if os.path.exists(certificate):
            context.load_cert_chain(certificate, key)
    except OSError as error:  # ssl.SSLError is one
        raise EngineGoneError(
            f"the certificates in {folder} cannot be used: {error.strerror or error}",
            meaning="The engine is spoken with over TLS, and they are needed for it",
            remedy="See that ca.pem, cert.pem and key.pem are there and readable: DOCKER_CERT_PATH names their folder",
            retryable=False,
        ) from error
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
