from __future__ import annotations

import pytest

from cachefetch.config import parse
from cachefetch.errors import InvalidRequest, NotAllowed, UnknownCache
from csi.permissions import CLAIM_NAMESPACE, POD_NAMESPACE, SERVICE_ACCOUNT, check_claim, check_pod

CONFIG = parse("""
caches:
  - {name: open, source: {type: directory, path: /srv}}
  - {name: bank, source: {type: directory, path: /srv}, access: {namespaces: [bank], serviceAccounts: [ci/builder]}}
""")


def test_claims_are_judged_by_their_namespace() -> None:
    check_claim(CONFIG, "open", {CLAIM_NAMESPACE: "any"})
    check_claim(CONFIG, "bank", {CLAIM_NAMESPACE: "bank"})
    with pytest.raises(NotAllowed, match="namespace 'ci'"):
        check_claim(CONFIG, "bank", {CLAIM_NAMESPACE: "ci", SERVICE_ACCOUNT: "builder"})
    with pytest.raises(InvalidRequest, match="--extra-create-metadata"):
        check_claim(CONFIG, "open", {})


def test_pods_are_judged_by_namespace_and_service_account() -> None:
    check_pod(CONFIG, "bank", {POD_NAMESPACE: "ci", SERVICE_ACCOUNT: "builder"})
    with pytest.raises(NotAllowed, match="'other'"):
        check_pod(CONFIG, "bank", {POD_NAMESPACE: "ci", SERVICE_ACCOUNT: "other"})
    with pytest.raises(InvalidRequest, match="podInfoOnMount"):
        check_pod(CONFIG, "open", {SERVICE_ACCOUNT: "builder"})


def test_unknown_cache_tells_only_what_one_may_use() -> None:
    with pytest.raises(UnknownCache) as caught:
        check_pod(CONFIG, "none", {POD_NAMESPACE: "team"})
    assert "open" in str(caught.value)
    assert "bank" not in str(caught.value)
