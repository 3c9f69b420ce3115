"""Removes what goldlink keeps on a node: python3 clean_up.py STATE_DIR, run by the chart's clean-up mode.

Refuses while volumes are mounted, names them, and looks again; done, it makes the file that the readiness probe wants.
"""

import signal
import subprocess
import sys
import time
from pathlib import Path

DONE = Path("/tmp/clean")
PARTS = ("caches", "staging", "pool", "volumes", "trash", "locks", "run")
"""What goldlink makes in a state directory; anything else is not its own and stays, the index of the store apart."""
LOOK = 5


def mounted(state_dir: Path) -> list[str]:
    """Where something of the state directory is mounted: mount points, as proc(5) describes mountinfo.

    A private view is a file system of its own; its source is the directory of its volume.
    """
    mounts = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    own = [(fields[2], fields[3]) for fields in mounts if fields[4] == str(state_dir)]
    return [
        fields[4]
        for fields in mounts
        if any(fields[2] == device and fields[3].startswith(f"{root}/") for device, root in own)
        or fields[fields.index("-") + 2].startswith(f"{state_dir}/volumes/")
    ]


def clean(state_dir: Path) -> None:
    """Remove goldlink's files."""
    for entry in state_dir.iterdir():
        if entry.name in PARTS and entry.is_dir():
            # Not rmtree, which pods could stop by directories that are nested deeper than Python recurses.
            subprocess.run(["rm", "-rf", "--one-file-system", entry], check=True)
        elif entry.name.startswith("index."):
            entry.unlink()


def main() -> None:
    """Clean, then wait for the end of the pod."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    state_dir = Path(sys.argv[1])
    while places := mounted(state_dir):
        print(f"volumes are still mounted, delete their pods: {' '.join(places)}", flush=True)
        time.sleep(LOOK)
    clean(state_dir)
    DONE.touch()
    left = sorted(entry.name for entry in state_dir.iterdir())
    print(f"{state_dir} is clean" + (f", but for what is not goldlink's: {' '.join(left)}" if left else ""), flush=True)
    signal.pause()


if __name__ == "__main__":
    main()
