"""What the `source` of a cache may say when it is behind http, in an object store or on a model hub.

A part of the configuration's schema. Secrets are never written into it: keys that end in `File` name the file that
holds one, which is read anew at each refresh.
"""

from __future__ import annotations

import re
from enum import StrEnum
from urllib.parse import urlsplit

import msgspec

from cachefetch import buckets, minisign, urls
from cachefetch.buckets import Provider
from cachefetch.schema import BadValue, Strict, absolute, checked
from cachefetch.urls import Format

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_REPO = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}(/[A-Za-z0-9][A-Za-z0-9._-]{0,95})?")
_HUB = "https://huggingface.co"


class HttpAuth(Strict, frozen=True):
    """Who asks a web server: exactly one of a bearer token, user and password, and a netrc file."""

    bearer_file: str | None = None
    """Absolute path of a file with a token."""
    username: str | None = None
    password_file: str | None = None
    """Absolute path of a file with the password of `username`."""
    netrc_file: str | None = None
    """Absolute path of a file in the form of netrc(5), which says who asks which host."""

    def __post_init__(self) -> None:
        if (self.username is None) != (self.password_file is None):
            raise BadValue("", "has only one of 'username' and 'passwordFile': give both")
        ways = {"bearerFile": self.bearer_file, "passwordFile": self.password_file, "netrcFile": self.netrc_file}
        given = {key: path for key, path in ways.items() if path is not None}
        if len(given) != 1:
            raise BadValue("", "needs exactly one of 'bearerFile', 'username' with 'passwordFile', and 'netrcFile'")
        for key, path in given.items():
            absolute(key, path)
        if self.username is not None and (":" in self.username or not self.username.isprintable()):
            raise BadValue("username", f"{self.username!r} has a colon or unprintable characters: RFC 7617 has no room")


class Minisign(Strict, frozen=True):
    """Signatures that were made with `minisign -S`."""

    keys: tuple[str, ...]
    """Public keys, each as base64 or as absolute path of a .pub file; a signature of any of them is good."""
    signature: str | None = None
    """URL of the signature file; None: `.minisig` behind the URL of what is signed."""

    def __post_init__(self) -> None:
        if not self.keys:
            raise BadValue("keys", "is empty: name at least one public key")
        for index, key in enumerate(self.keys):
            if key.startswith("/"):
                absolute(f"keys[{index}]", key)
            else:
                checked(f"keys[{index}]", minisign.parse_key, key)


class FileVerify(Strict, frozen=True):
    """What a file must prove."""

    minisign: Minisign
    require: bool = True
    """Refuse what is not properly signed; false: only log it."""


class Http(Strict, frozen=True, tag="http", tag_field="type"):
    """An archive or a single file behind an http or https URL."""

    url: str
    digest: str | None = None
    """`sha256:` and 64 hexadecimal digits, of the bytes as served; None: not checked."""
    sha256sums: str | None = None
    """URL of a file as `sha256sum` writes it, in which the digest stands beside the file's name; None: none."""
    format: Format | None = None
    """What the bytes are; None: what the suffix of the URL says, see `kind`."""
    auth: HttpAuth | None = None
    """None: the server is asked without a login, or with the one in the URL."""
    ca: str | None = None
    """Absolute path of a PEM file with authorities that are trusted besides the system's."""
    verify: FileVerify | None = None
    """None: no signature is asked for."""

    def __post_init__(self) -> None:
        checked("url", urls.check, self.url)
        if self.digest is not None and not _DIGEST.fullmatch(self.digest):
            raise BadValue(
                "digest", f"{self.digest!r} is not a digest: write 'sha256:' and 64 lower-case hexadecimal digits"
            )
        if self.sha256sums is not None:
            checked("sha256sums", urls.check, self.sha256sums)
            checked("url", urls.file_name, self.url)
        if self.digest is not None and self.sha256sums is not None:
            raise BadValue("sha256sums", "stands beside 'digest': keep one of the two")
        if self.kind is Format.FILE:
            checked("url", urls.file_name, self.url)
        if self.auth is not None and "@" in urlsplit(self.url).netloc:
            raise BadValue("auth", "stands beside a login in 'url': keep one of the two")
        if self.ca is not None:
            absolute("ca", self.ca)
        if self.verify is not None:
            checked("verify.minisign.signature", urls.check, self.signature)

    @property
    def kind(self) -> Format:
        """What the bytes are."""
        return self.format or urls.format_of(self.url)

    @property
    def signature(self) -> str:
        """Where the signature is, if there is one: beside the file, whatever query its URL has."""
        if self.verify is not None and self.verify.minisign.signature is not None:
            return self.verify.minisign.signature
        parts = urlsplit(self.url)
        return parts._replace(path=f"{parts.path}.minisig").geturl()


class ObjectCredentials(Strict, frozen=True):
    """Who asks an object store, by files. Which keys are allowed depends on the scheme of the URL."""

    access_key_id_file: str | None = None
    secret_access_key_file: str | None = None
    """S3: both of them."""
    session_token_file: str | None = None
    """S3: of temporary credentials."""
    service_account_file: str | None = None
    """GCS: the JSON key of a service account, or the configuration of a workload identity federation."""
    account_key_file: str | None = None
    """Azure: the key of the storage account."""
    sas_token_file: str | None = None
    """Azure: a shared access signature."""

    def given(self) -> dict[str, str]:
        """The keys that have a value, as they are written in the configuration."""
        return {
            field.encode_name: value
            for field in msgspec.structs.fields(self)
            if (value := getattr(self, field.name)) is not None
        }


_CREDENTIALS = {
    Provider.S3: (
        {"accessKeyIdFile", "secretAccessKeyFile"},
        {"accessKeyIdFile", "secretAccessKeyFile", "sessionTokenFile"},
    ),
    Provider.GCS: ({"serviceAccountFile"},),
    Provider.AZURE: ({"accountKeyFile"}, {"sasTokenFile"}),
}
"""The sets of keys that make one login."""


class ObjectStore(Strict, frozen=True, tag="objectstore", tag_field="type"):
    """Objects of S3, Google Cloud Storage or Azure Blob Storage: all below a prefix, or a single one."""

    url: str
    """`s3://bucket/prefix/` is a tree of files, `s3://bucket/key.tar.zst` one object; also gs:// and az://."""
    format: Format | None = None
    """What a single object is; None: what the suffix of its key says, see `kind`."""
    endpoint: str | None = None
    """URL of the service; None: the provider's own."""
    region: str | None = None
    """S3; None: the environment's, or us-east-1."""
    path_style: bool | None = None
    """S3: whether the bucket stands in the path rather than in the host name; None: where an endpoint is given."""
    account: str | None = None
    """Azure: name of the storage account; None: the environment's."""
    anonymous: bool = False
    """Ask without any login."""
    credentials: ObjectCredentials | None = None
    """None: those of the environment or of the machine, as the provider's own tools find them."""
    ca: str | None = None
    """Absolute path of a PEM file with authorities that are trusted besides the system's."""
    verify: FileVerify | None = None
    """Of a single object; None: no signature is asked for."""

    def __post_init__(self) -> None:
        checked("url", buckets.parse, self.url)
        if self.endpoint is not None:
            checked("endpoint", urls.check_base, self.endpoint)
        if self.ca is not None:
            absolute("ca", self.ca)
        self._check_provider()
        self._check_credentials()
        if self.location.tree and (self.format or self.verify):
            key = "format" if self.format else "verify"
            raise BadValue(key, f"is for a single object, and {self.url!r} is a prefix: remove it, or the last '/'")
        if self.verify is not None and self.signature.bucket != self.location.bucket:
            raise BadValue("verify.minisign.signature", f"is not in the bucket of {self.url!r}: put it there")

    def _check_provider(self) -> None:
        provider = self.location.provider
        only = {"region": Provider.S3, "pathStyle": Provider.S3, "account": Provider.AZURE}
        given = {"region": self.region, "pathStyle": self.path_style, "account": self.account}
        for key, value in given.items():
            if value is not None and only[key] is not provider:
                raise BadValue(key, f"is for {only[key]}:// only: remove it")

    def _check_credentials(self) -> None:
        if self.credentials is None:
            return
        if self.anonymous:
            raise BadValue("credentials", "stands beside 'anonymous: true': keep one of the two")
        given, provider = self.credentials.given(), self.location.provider
        if set(given) not in _CREDENTIALS[provider]:
            ways = " or ".join("{" + ", ".join(sorted(way)) + "}" for way in _CREDENTIALS[provider])
            raise BadValue("credentials", f"is not a login for {provider}://: give {ways}")
        for key, path in given.items():
            absolute(f"credentials.{key}", path)

    @property
    def location(self) -> buckets.Location:
        """What the URL names."""
        return buckets.parse(self.url)

    @property
    def kind(self) -> Format:
        """What a single object is."""
        return self.format or self.location.format

    @property
    def signature(self) -> buckets.Location:
        """Where the signature of a single object is, if there is one."""
        given = self.verify.minisign.signature if self.verify else None
        try:
            return buckets.parse(given or f"{self.url}.minisig")
        except ValueError as error:
            raise BadValue("verify.minisign.signature", str(error)) from None


class RepoType(StrEnum):
    """What a repository of the hub holds."""

    MODEL = "model"
    DATASET = "dataset"
    SPACE = "space"


class HuggingFace(Strict, frozen=True, tag="huggingface", tag_field="type"):
    """The files of a repository on the Hugging Face hub, or on a server that speaks its protocol."""

    repo: str
    """`owner/name`."""
    repo_type: RepoType = RepoType.MODEL
    revision: str = "main"
    """Branch, tag or commit; resolved to a commit at each refresh."""
    allow: tuple[str, ...] = ()
    """Patterns (`*`, `?`, `[…]`; `*` also stands for `/`) of the paths to fetch; empty: all. `dir/` is all below it."""
    ignore: tuple[str, ...] = ()
    """Patterns of the paths to leave out, also of those that `allow` names."""
    token_file: str | None = None
    """Absolute path of a file with an access token; None: the hub is asked without one."""
    endpoint: str = _HUB
    ca: str | None = None
    """Absolute path of a PEM file with authorities that are trusted besides the system's."""

    def __post_init__(self) -> None:
        if not _REPO.fullmatch(self.repo):
            raise BadValue("repo", f"{self.repo!r} is not a repository of the hub: write 'owner/name'")
        if not self.revision or not self.revision.isprintable():
            raise BadValue("revision", f"{self.revision!r} is not a revision: write a branch, a tag or a commit")
        checked("endpoint", urls.check_base, self.endpoint)
        for key, path in (("tokenFile", self.token_file), ("ca", self.ca)):
            if path is not None:
                absolute(key, path)
        for key, patterns in (("allow", self.allow), ("ignore", self.ignore)):
            for index, pattern in enumerate(patterns):
                if not pattern or pattern.startswith("/"):
                    raise BadValue(f"{key}[{index}]", f"{pattern!r} matches no path: paths have no '/' at their start")
