"""The command line: a thin front over ``app``. Nothing is decided here but how things are asked for and
shown.

``lazy`` knows which module answers which command, ``options`` what all commands understand, ``main`` turns
errors into text and exit codes. One file per command, imported when it is called.
"""
