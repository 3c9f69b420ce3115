"""The API server of the cluster, as far as a fetcher talks to it. No other module knows how.

Objects are applied (Kubernetes documentation, "Server-Side Apply"): one call makes an object or changes it, and a
repeated one changes nothing.
"""

from __future__ import annotations

import os
import ssl
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

import httpx2

from cachefetch import __version__
from cachefetch.errors import Code, ConfigError, GoldlinkError

if TYPE_CHECKING:
    from collections.abc import Mapping

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where kubelet puts a pod's token (Kubernetes documentation, "Accessing the Kubernetes API from a Pod")."""
_TIMEOUT = 10.0  # seconds; nothing waits for an answer
_MANAGER = {"fieldManager": "goldlink", "force": "true"}


class ApiError(GoldlinkError):
    """The API server refused, or did not answer."""

    code = Code.UNAVAILABLE

    def __init__(self, text: str, status: int = 0) -> None:
        """`status` is that of HTTP; 0: there was no answer."""
        super().__init__(text)
        self.status = status

    @property
    def final(self) -> bool:
        """Whether the same call would be refused again."""
        return 400 <= self.status < 500 and self.status != HTTPStatus.TOO_MANY_REQUESTS  # noqa: PLR2004  (4xx: RFC 9110)


class Api(Protocol):
    """What a fetcher needs of the API server; `path` is that of an object or of a kind."""

    def apply(self, path: str, thing: Mapping[str, Any]) -> None:
        """Make the object, or change it into this.

        Raises:
            ApiError: that failed.
        """
        ...

    def delete(self, path: str) -> None:
        """Delete the object; one that is gone already is fine.

        Raises:
            ApiError: that failed.
        """
        ...

    def names(self, path: str, selector: str) -> list[str]:
        """Names of the objects with the labels of `selector`.

        Raises:
            ApiError: that failed.
        """
        ...

    def labels(self, path: str) -> dict[str, str]:
        """The labels of the object.

        Raises:
            ApiError: that failed.
        """
        ...


class ApiServer:
    """The API server at an address."""

    def __init__(self, url: str, account: Path) -> None:
        """Talk to `url` with the `token` of the directory `account`, whose `ca.crt` vouches for the server.

        Raises:
            ConfigError: that cannot be read.
        """
        self._token = account / "token"
        try:
            trust = ssl.create_default_context(cafile=account / "ca.crt")
        except OSError as error:
            raise ConfigError(
                f"{account / 'ca.crt'} cannot be read ({error.strerror}): mount the token of the service account "
                "there, or leave --node-id out"
            ) from error
        # Without what the environment says of proxies: those are for sources, the API server is near.
        headers = {"User-Agent": f"cachefetch/{__version__}"}
        self._client = httpx2.Client(base_url=url, verify=trust, timeout=_TIMEOUT, trust_env=False, headers=headers)

    @classmethod
    def of_pod(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """The one that kubelet tells every container of.

        Raises:
            ConfigError: this is no pod.
        """
        host, port = environment.get("KUBERNETES_SERVICE_HOST"), environment.get("KUBERNETES_SERVICE_PORT")
        if not host or not port:
            raise ConfigError("--node-id: this is no pod, so there is no cluster to be told: leave it out")
        return cls(f"https://{f'[{host}]' if ':' in host else host}:{port}", ACCOUNT)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def apply(self, path: str, thing: Mapping[str, Any]) -> None:
        """See `Api`. JSON is YAML, and this is the only type that every API server since 1.22 takes."""
        self._call("PATCH", path, {"Content-Type": "application/apply-patch+yaml"}, params=_MANAGER, json=thing)

    def delete(self, path: str) -> None:
        """See `Api`."""
        try:
            self._call("DELETE", path)
        except ApiError as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise

    def names(self, path: str, selector: str) -> list[str]:
        """See `Api`."""
        found = self._call("GET", path, params={"labelSelector": selector})
        return [item["metadata"]["name"] for item in found["items"]]

    def labels(self, path: str) -> dict[str, str]:
        """See `Api`. An object without labels has no such field."""
        found: dict[str, str] = self._call("GET", path)["metadata"].get("labels", {})
        return found

    def _call(self, method: str, path: str, headers: Mapping[str, str] | None = None, **more: Any) -> Any:
        try:
            # Read each time: kubelet replaces it long before it expires.
            authorization = {"Authorization": f"Bearer {self._token.read_text().strip()}"}
            answer = self._client.request(method, path, headers={**authorization, **(headers or {})}, **more)
        except (httpx2.HTTPError, OSError) as error:
            raise ApiError(f"the API server does not answer ({error}): it is asked again") from error
        if answer.is_success:
            return answer.json()
        raise ApiError(f"the API server refused {method} {path}: {_reason(answer)}", answer.status_code)


def _reason(answer: httpx2.Response) -> str:
    """Why, in the words of the API server (Kubernetes API reference, "Status")."""
    try:
        return str(answer.json()["message"])
    except (ValueError, KeyError, TypeError):
        return f"{answer.status_code} {answer.reason_phrase}"
