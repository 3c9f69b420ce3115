"""nginx, serving a directory: plainly, over TLS, with a password, slowly, and after a redirect."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING

from tests.processes import free_port, listens, running
from tests.servers.tls import make_certificates
from tests.servers.traffic import Exchange, Traffic

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_CONFIGURATION = """
user root;
worker_processes 1;  # so that log lines are in the order of the answers
daemon off;
pid {directory}/pid;
error_log stderr;
events {{ }}
http {{
    log_format exchange escape=json
        '["$request_method", "$request_uri", "$http_range", $status, $body_bytes_sent]';
    access_log {directory}/access.log exchange;
    absolute_redirect off;  # so that a client of a proxy stays with the proxy
    types {{ }}
    default_type application/octet-stream;
    client_body_temp_path {directory}/client_body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    server {{
        listen 127.0.0.1:{port};
        listen 127.0.0.1:{tls_port} ssl;
        ssl_certificate {certificate};
        ssl_certificate_key {key};
        location / {{ root {root}; }}
        location /private/ {{
            alias {root}/;
            auth_basic goldlink;
            auth_basic_user_file {directory}/htpasswd;
        }}
        location /slow/ {{ alias {root}/; limit_rate {rate}; }}
        location /moved/ {{ rewrite ^/moved(/.*)$ $1 redirect; }}
        location /mark/ {{ return 204; }}
    }}
}}
"""


@dataclass(frozen=True)
class Nginx:
    """A running nginx. `/private/`, `/slow/` and `/moved/` serve or lead to the same files as `/`."""

    url: str
    tls_url: str
    authority: Path
    """PEM; what a client of `tls_url` must trust."""
    root: Path
    """The directory it serves."""
    user: str
    password: str
    rate: int
    """Bytes a second, for each answer below `/slow/`."""
    access_log: Path
    _marks: count[int] = field(default_factory=count)

    def traffic(self) -> Traffic:
        """What was answered so far.

        nginx logs after it has answered, so the log is read up to a request of our own.
        """
        mark = f"/mark/{next(self._marks)}"
        urllib.request.urlopen(self.url + mark, timeout=10).close()
        end = time.monotonic() + 60
        while mark not in (text := self.access_log.read_text()):
            assert time.monotonic() < end, f"nginx did not log {mark}"
            time.sleep(0.01)
        exchanges = (Exchange(*json.loads(line)) for line in text.splitlines())
        return Traffic(exchange for exchange in exchanges if not exchange.path.startswith("/mark/"))


@contextmanager
def running_nginx(directory: Path, *, rate: int = 1 << 20) -> Iterator[Nginx]:
    """Run nginx until the end of the block, with its files in `directory`."""
    root, user, password = directory / "root", "reader", "s3cret:with colon"
    root.mkdir(parents=True)
    certificates = make_certificates(directory)
    port, tls_port = free_port(), free_port()
    htpasswd(directory / "htpasswd", user, password)
    configuration = directory / "nginx.conf"
    configuration.write_text(
        _CONFIGURATION.format(
            directory=directory,
            port=port,
            tls_port=tls_port,
            certificate=certificates.certificate,
            key=certificates.key,
            root=root,
            rate=rate,
        )
    )
    log = directory / "nginx.log"
    # -e: without it nginx opens the system's error log before it has read its configuration.
    command = ["/usr/sbin/nginx", "-p", str(directory), "-e", "stderr", "-c", str(configuration)]
    with running(command, log=log, ready=lambda: listens(port) and listens(tls_port)):
        yield Nginx(
            url=f"http://127.0.0.1:{port}",
            tls_url=f"https://127.0.0.1:{tls_port}",
            authority=certificates.authority,
            root=root,
            user=user,
            password=password,
            rate=rate,
            access_log=directory / "access.log",
        )


def htpasswd(file: Path, user: str, password: str) -> None:
    """Write a password file for nginx and the registry: bcrypt, of low cost."""
    command = ["htpasswd", "-niB", "-C", "4", user]
    done = subprocess.run(command, input=password, check=True, capture_output=True, text=True)
    file.write_text(done.stdout)
