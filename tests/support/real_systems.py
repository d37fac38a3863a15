"""Whether tests may use a real SLURM or network file system: they take minutes, so only on demand.

``.ci/run`` installs the packages and sets the variable. Without it these tests are skipped.
"""

import os

WANTED = os.environ.get("MSER_REAL_SYSTEMS") == "1"
ON_DEMAND = "set MSER_REAL_SYSTEMS=1, as .ci/run does"
