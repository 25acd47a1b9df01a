package library_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"banger"
	"banger/internal/image"
	"banger/internal/kernel"
	"banger/internal/library"
)

// libraryOf returns a library without images and kernels, on a host with these programs only, and the directory of the
// kernels. Each program is a script.
func libraryOf(t *testing.T, programs map[string]string) (l *library.Library, kernels string) {
	t.Helper()
	bin, state := t.TempDir(), t.TempDir()
	for name, script := range programs {
		check(t, os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\n"+script+"\n"), 0o755))
	}
	t.Setenv("PATH", bin+":/usr/bin:/bin")
	images, err := image.Open(filepath.Join(state, "images"), image.Options{})
	check(t, err)
	t.Cleanup(func() { images.Close() })
	kernels = filepath.Join(state, "kernels")
	store, err := kernel.Open(kernels)
	check(t, err)
	return library.New(library.Options{Images: images, Kernels: store, VMs: machines{}}), kernels
}

// TestAKernelIsFetchedWhileAnImageIsMade makes an image that fails when the fetch of a kernel has begun. That fetch
// ends then, and leaves nothing.
func TestAKernelIsFetchedWhileAnImageIsMade(t *testing.T) {
	begun := filepath.Join(t.TempDir(), "begun")
	l, kernels := libraryOf(t, map[string]string{
		"apt-cache":  "touch " + begun + "; exec sleep 1000",
		"mmdebstrap": "until [ -e " + begun + " ]; do sleep 0.02; done; echo 'E: no packages' >&2; exit 1",
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var stages []string
	_, _, _, err := l.Use(ctx, banger.Spec{Image: "debian-bookworm", Pull: banger.PullMissing}, "a test",
		func(e banger.Event) { stages = append(stages, e.Stage) }, func(string) {})
	if err == nil || !strings.Contains(err.Error(), "E: no packages") {
		t.Errorf("the error is %v", err)
	}
	if slices.Contains(stages, "kernel") {
		t.Errorf("the kernel is told of before the image is there: %q", stages)
	}
	if left, _ := os.ReadDir(kernels); len(left) > 0 {
		t.Errorf("left is %v", left)
	}
}

// TestAKernelThatIsNamedIsNotFetched names one that is not there.
func TestAKernelThatIsNamedIsNotFetched(t *testing.T) {
	l, _ := libraryOf(t, nil)
	var told []string
	tell := func(e banger.Event) { told = append(told, e.Text) }
	spec := banger.Spec{Image: imageAt(t), Pull: banger.PullMissing, Kernel: "mine"}
	_, _, _, err := l.Use(t.Context(), spec, "a test", tell, func(string) {})
	if banger.CodeOf(err) != banger.CodeNotFound || err.Error() != `no kernel is called "mine" (see: banger kernel ls)` {
		t.Errorf("the error is %v", err)
	}
	if slices.ContainsFunc(told, func(text string) bool { return strings.Contains(text, "apt") }) {
		t.Errorf("a kernel is fetched although one is named: %q", told)
	}
}
