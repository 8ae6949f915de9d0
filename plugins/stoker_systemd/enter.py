"""The first thing in a worker's unit: take on the declared environment, and nothing else, then the command.

systemd gives its services variables of its own, and would show declared ones to everybody on the box. So
the environment comes as a credential, which only this unit can read. The socket closes when the command is
executed; before that it may tell why it could not be. Its text is run with `python -c`, by whatever Python
the worker's user may run: it needs no package, and no more than Python 3.6.
"""

import json
import os
import signal
import socket


def main() -> None:
    """Become the command."""
    with open(os.path.join(os.environ["CREDENTIALS_DIRECTORY"], "order"), encoding="ascii") as file:
        order = json.load(file)
    line = socket.socket(socket.AF_UNIX)
    line.connect(order["line"])
    for name in ("SIGPIPE", "SIGXFSZ"):  # Python's own doing
        signal.signal(getattr(signal, name), signal.SIG_DFL)
    environ = {os.fsencode(name): os.fsencode(value) for name, value in order["environ"].items()}
    try:
        os.execve(order["path"], order["argv"], environ)
    except OSError as error:
        line.send(str(error.errno).encode())
        os._exit(127)


if __name__ == "__main__":
    main()
