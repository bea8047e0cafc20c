"""A measuring process in which candidates go wrong: `python faulty_worker.py KIND...`, in turns.

The first compilation is the untuned kernel and is left alone; `none` is a candidate that is fine.
"""

import os
import sys
import time

from tinycore_pass_search import bench, worker

from tinycore.ir import ops

kinds = sys.argv[1:]
count = 0
apply = bench.safe


def faulty(kernel, actions):
    global count
    tiled = apply(kernel, actions)
    kind = kinds[count % len(kinds)] if count else "none"
    count += 1
    if kind == "crash":
        os.abort()
    elif kind == "hang":
        time.sleep(1000)
    elif kind == "raise":
        raise MemoryError("out of memory")
    elif kind == "wrong":
        wrong = {n: n.replace(op=ops.SUB) for n in tiled.toposort() if n.op is ops.ADD and n.dtype.is_float}
        return tiled.substitute(wrong)
    return tiled


bench.safe = faulty
worker.main()
