#!/usr/bin/env bash
# build.sh [GROUP…]: build what the cluster of the tests is made of, from Go modules, and print a directory for each group.
# Groups: kubernetes (API server, controller manager, scheduler, kubelet, kubectl, agnhost), storage (the external-storage
# suite and ginkgo), sidecars (of the CSI project, with the CRDs of snapshots), monitoring (CRDs of the operator of Prometheus), helm.
# Without arguments: all.
# Built once for each set of versions, below the user's cache directory, at the lowest priority; go.mod in go/ has the versions.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/goldlink/e2e
helm=helm.sh/helm/v3/cmd/helm@v3.22.0
csi=github.com/kubernetes-csi

# One setting for all, so that they share what is compiled; static, because they also run in images with nothing else in them.
export CGO_ENABLED=0 GOTOOLCHAIN=local GOFLAGS=-buildvcs=false

version() { # MODULE: the version of it that go.mod in this directory requires
    awk -v module="$1" '$1 == module || $2 == module {print $(NF - ($NF == "indirect") * 2); exit}' go.mod
}

compile() { # FLAGS… PACKAGES…: go build into $out, with a line now and then about how far it is
    nice -n 19 "$go" build -v -o "$out/" "$@" 2>&1 |
        awk -v start="$(date +%s)" '
            /^[^ ]+$/ {if (++n % 250 == 0) {print "  " n " packages compiled, " systime() - start " s"; fflush()} next}
            {print; fflush()}'
}

kubernetes() {
    local v k=k8s.io/kubernetes/cmd base=k8s.io/component-base/version
    v=$(version k8s.io/kubernetes)
    compile -ldflags "-s -w -X $base.gitVersion=$v -X $base.gitMajor=1 -X $base.gitMinor=$(cut -d. -f2 <<<"$v")" \
        $k/kube-apiserver $k/kube-controller-manager $k/kube-scheduler $k/kubelet $k/kubectl k8s.io/kubernetes/test/images/agnhost
}

storage() {
    compile -ldflags '-s -w' github.com/onsi/ginkgo/v2/ginkgo
    echo "  compiling the tests" >&2
    nice -n 19 "$go" test -c -ldflags '-s -w' -o "$out/e2e.test" ./storage
}

sidecars() {
    local module command
    for command in provisioner/v6/cmd/csi-provisioner attacher/v4/cmd/csi-attacher resizer/v2/cmd/csi-resizer \
        snapshotter/v8/cmd/csi-snapshotter snapshotter/v8/cmd/snapshot-controller; do
        module=$csi/external-${command%/cmd/*}
        compile -ldflags "-s -w -X main.version=$(version "$module")" "$csi/external-$command"
    done
    # The definitions of VolumeSnapshot and its like, which belong to the cluster.
    cp -r "$("$go" list -m -f '{{.Dir}}' $csi/external-snapshotter/client/v8)/config/crd" "$out/crd"
    chmod -R u+w "$out/crd"
}

monitoring() {
    local operator=github.com/prometheus-operator/prometheus-operator
    "$go" mod download $operator
    cp "$("$go" list -m -f '{{.Dir}}' $operator)"/example/prometheus-operator-crd/*_{podmonitors,prometheusrules}.yaml "$out"
    chmod u+w "$out"/*
}

build() { # GROUP MODULE-DIRECTORY: print the directory of the group's commands, which are built if need be
    local name=$1 module=$here/go/$2 key out home start
    key=$({ declare -f "$name" compile; find "$module" -type f -print0 | sort -z | xargs -0 cat; } | sha256sum | cut -c1-12)
    home=$cache/$name-$key
    if [ ! -d "$home" ]; then
        mkdir -p "$cache"
        exec 9>"$cache/$name.lock"
        flock 9
    fi
    if [ ! -d "$home" ]; then
        go=$("$here/../tools/go.sh")
        start=$SECONDS
        echo "building $name for the tests (minutes the first time)" >&2
        out=$(mktemp -d "$cache/.$name.XXXXXX")
        (cd "$module" && "$name") >&2 || { rm -rf "$out"; exit 1; }
        mv -T "$out" "$home"
        echo "built $name in $((SECONDS - start)) s" >&2
    fi
    echo "$home"
}

for group in "${@:-kubernetes storage sidecars monitoring helm}"; do
    for name in $group; do
        case $name in
            kubernetes | storage) build "$name" kubernetes ;;
            sidecars | monitoring) build "$name" "$name" ;;
            helm) dirname "$("$here/../tools/gotool.sh" $helm)" ;;
            *) echo "build.sh: there is no group '$name': use kubernetes, storage, sidecars, monitoring or helm" >&2; exit 2 ;;
        esac
    done
done
