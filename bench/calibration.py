"""How fast the core is just now: the processor time of a fixed piece of Python on it.

A machine that others use makes every processor second do less (shared caches, a hypervisor's neighbours). Two runs can
be compared by their figures over this one.
"""

import json
import os
import time

_DOCUMENT = {
    "names": [f"name-{number}" for number in range(40)],
    "text": "x" * 200,
    "numbers": list(range(40)),
}
_TIMES = 200


def unit_ms(core: int) -> float:
    """Milliseconds of processor time for one unit: 200 documents read and written, on this core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        began = time.thread_time()
        for _ in range(_TIMES):
            json.loads(json.dumps(_DOCUMENT))
        return (time.thread_time() - began) * 1000
    finally:
        os.sched_setaffinity(0, before)
