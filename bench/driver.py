"""One run of one case against one server, in a process of its own: `python -m bench.driver CASE TARGET-JSON`.

Prints the result as JSON. A process a run, so that no run inherits another's garbage or sockets.
"""

import dataclasses
import gc
import json
import sys

from bench import cases


def main(name: str, target: str) -> None:
    """Run it; a server's wrong answer is printed as {"failed": …}."""
    described = cases.Target(**json.loads(target))
    gc.disable()
    try:
        if name == "fill":
            cases.fill(described)
            print('{"filled": true}')
            return
        result = cases.CASES[name][1](described)
    except (cases.Failed, OSError) as error:
        print(json.dumps({"failed": f"{error!r}"}))
        return
    print(json.dumps(dataclasses.asdict(result)))


if __name__ == "__main__":
    main(*sys.argv[1:])
