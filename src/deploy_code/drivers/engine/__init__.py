"""The client of container engines: one API over a socket, spoken by Docker and by Podman alike.

``endpoint`` finds the engine, ``client`` talks to it, ``http`` is the connection below, ``credentials`` and
``reference`` are what pulling needs to know. No decision about containers is made here.
"""
