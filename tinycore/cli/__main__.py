"""`python -m tinycore.cli`."""

import sys

from tinycore.cli import main

sys.exit(main())
