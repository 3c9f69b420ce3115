"""Refuses an uninstall while volumes of the driver exist: python3 uninstall_check.py DRIVER, run by `helm uninstall`.

Without the driver nobody could unmount them, and their pods would end never. Exit status 1 names who has volumes.
"""

import json
import os
import ssl
import sys
import urllib.request
from pathlib import Path

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
OVER = ("Succeeded", "Failed")
"""Phases of pods that have given their volumes back."""
PAGE = 500
TIMEOUT = 30


def items(path: str) -> list[dict]:
    """All objects of a kind, page by page."""
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
    base = f"https://{f'[{host}]' if ':' in host else host}:{port}{path}?limit={PAGE}"
    tls = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))
    found, more = [], ""
    while True:
        request = urllib.request.Request(base + (f"&continue={more}" if more else ""))
        request.add_header("Authorization", f"Bearer {(ACCOUNT / 'token').read_text()}")
        with urllib.request.urlopen(request, context=tls, timeout=TIMEOUT) as answer:
            page = json.load(answer)
        found += page["items"]
        more = page["metadata"].get("continue", "")
        if not more:
            return found


def users(pods: list[dict], volumes: list[dict], driver: str) -> list[str]:
    """One line for each pod and each PersistentVolume with a volume of the driver."""
    lines = []
    for pod in pods:
        named = [
            volume["name"] for volume in pod["spec"].get("volumes", []) if volume.get("csi", {}).get("driver") == driver
        ]
        if named and pod.get("status", {}).get("phase") not in OVER:
            lines.append(f"pod {pod['metadata']['namespace']}/{pod['metadata']['name']} has volume {', '.join(named)}")
    for volume in volumes:
        if volume["spec"].get("csi", {}).get("driver") == driver:
            claim = volume["spec"].get("claimRef")
            of = f" of claim {claim['namespace']}/{claim['name']}" if claim else ""
            lines.append(f"PersistentVolume {volume['metadata']['name']}{of}")
    return sorted(lines)


def main() -> int:
    """Look, and tell."""
    driver = sys.argv[1]
    lines = users(items("/api/v1/pods"), items("/api/v1/persistentvolumes"), driver)
    if not lines:
        print(f"no volumes of {driver}: it can go")
        return 0
    print(f"{driver} is in use. Delete these first, or skip the check with --no-hooks and delete them by hand later:")
    print("\n".join(lines))
    return 1


if __name__ == "__main__":
    sys.exit(main())
