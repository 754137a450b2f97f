"""The supervisor for hosts without a compiler: the twin of supervise.c, same arguments, files and tests.

Run as `python -I -S supervise.py DIR COMMAND [ARGUMENT...]`, with fd 3 and 4 as there. It costs about 8 MiB a
container instead of a tenth of one, and 20 ms at the start; nothing else differs. Its parts are in twin/, and nothing
else of the project is loaded: they are found below a `node.runtime` that is only a place. The comments on why are in
supervise.c.
"""

import os
import signal
import sys


def main(arguments: list[str]) -> None:
    here = os.path.dirname(os.path.abspath(__file__))
    for name, place in (("node", os.path.dirname(here)), ("node.runtime", here)):
        package = type(sys)(name)
        package.__path__ = [place]
        sys.modules[name] = package
    from node.runtime.twin.life import LOCK_FD, Supervisor

    os.chdir(arguments[0])
    os.closerange(LOCK_FD + 1, 65536)
    supervisor = Supervisor(arguments[1:])
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    supervisor.run()


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(2)
    main(sys.argv[1:])
