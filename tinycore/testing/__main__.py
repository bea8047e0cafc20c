"""``python -m tinycore.testing DEVICE SEED TEXT`` repeats a case that failed, as its error message says."""

from __future__ import annotations

import sys

from tinycore.testing.compare import case_of, check
from tinycore.testing.devices import runner


def main(arguments: list[str]) -> int:
    """Compute the case on the device and say how it went."""
    if len(arguments) != 3:
        print(__doc__)
        return 2
    name, seed, text = arguments
    try:
        check(case_of(text, int(seed)), runner(name), name)
    except AssertionError as problem:
        print(problem)
        return 1
    print("right")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
