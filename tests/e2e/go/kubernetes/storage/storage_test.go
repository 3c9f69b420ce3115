// Package storage is the external-storage suite of Kubernetes alone.
//
// The whole test/e2e package of Kubernetes needs cloud modules; this compiles the storage suite and what it needs.
package storage

import (
	"flag"
	"os"
	"testing"

	"k8s.io/kubernetes/test/e2e"
	"k8s.io/kubernetes/test/e2e/framework"
	"k8s.io/kubernetes/test/e2e/framework/config"
	"k8s.io/kubernetes/test/e2e/framework/testfiles"
	manifests "k8s.io/kubernetes/test/e2e/testing-manifests"

	_ "k8s.io/kubernetes/test/e2e/framework/debug/init"   // dumps the namespace of a failed spec
	_ "k8s.io/kubernetes/test/e2e/framework/metrics/init" // the framework expects it
	_ "k8s.io/kubernetes/test/e2e/framework/node/init"    // the framework expects it
	_ "k8s.io/kubernetes/test/e2e/storage/external"       // the suite
)

// TestMain reads the flags as test/e2e does.
func TestMain(m *testing.M) {
	config.CopyFlags(config.Flags, flag.CommandLine)
	framework.RegisterCommonFlags(flag.CommandLine)
	framework.RegisterClusterFlags(flag.CommandLine)
	flag.Parse()
	testfiles.AddFileSource(manifests.GetE2ETestingManifestsFS())
	framework.AfterReadingAllFlags(&framework.TestContext)
	os.Exit(m.Run())
}

// TestE2E runs the specs.
func TestE2E(t *testing.T) { e2e.RunE2ETests(t) }
