"""Run `python -m csi` in a mount namespace of its own that shares its mounts with this one, as a container's does.

Then every mount and unmount of the driver is done a second time in the namespace it came from: Bidirectional
propagation, without which pods would not see their volumes.
"""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":
    own = ("unshare", "--mount", "--propagation", "unchanged")
    os.execvp(own[0], [*own, sys.executable, "-m", "csi", *sys.argv[1:]])
