package report

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"banger"
	"banger/internal/api/wire"
	"banger/internal/reset"
)

// stock has two images, of which one is used.
type stock struct{ broken error }

func (s stock) ImageUsage() ([]banger.ImageUsage, error) {
	return []banger.ImageUsage{{Digest: "sha256:a"}, {Digest: "sha256:b"}}, s.broken
}

func (stock) PruneImages(all, dryRun bool) (banger.Pruned, error) {
	if !all || !dryRun {
		return banger.Pruned{}, errors.New("a report removes nothing")
	}
	return banger.Pruned{Images: []string{"sha256:b"}, Bytes: 1 << 20}, nil
}

func (stock) Kernels() ([]banger.Kernel, error) { return []banger.Kernel{{Name: "linux"}}, nil }

// reporter returns a reporter on a state directory with a VM that runs, one that does not, and a chain of two layers.
func reporter(t *testing.T) *Reporter {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"images/sha256/aa/rootfs.ext4": "image", "kernels/linux/vmlinux": "kernel",
		"vms/0123456789ab/disk.ext4": "disk", "vms/0123456789ab.json": `{"vm":{"id":"0123456789ab","name":"box"}}`,
		"layers/0123456789b0/layer.json":   `{"id":"0123456789b0","size":1048576,"file":"disk"}`,
		"layers/0123456789b0/disk":         "layer",
		"layers/0123456789b1/layer.json":   `{"id":"0123456789b1","parent":"0123456789b0","size":1048576,"file":"disk"}`,
		"layers/0123456789b1/disk":         "layer",
		"snapshots/0123456789c0/info.json": "{}", "workspaces/0a/record.json": "{}",
	} {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	vms := []banger.VM{
		{ID: "0123456789ab", Name: "box", State: banger.StateStopped, ImageDigest: "sha256:a", Kernel: "linux"},
		{ID: "0123456789ac", Name: "web", State: banger.StateRunning, ImageDigest: "sha256:a", Kernel: "linux",
			Template: "00000000000a", Base: "0123456789b0"}}
	return &Reporter{
		Home:    reset.Home{State: dir, Run: filepath.Join(dir, "run"), ShimArgv: []string{"banger", "no shim"}},
		Version: func(context.Context) wire.Version { return wire.Version{KVM: "there is no /dev/kvm"} },
		VMs:     func(func(banger.VM) bool) []banger.VM { return vms },
		Library: stock{},
		Templates: func() ([]banger.Template, error) {
			return []banger.Template{{ID: "00000000000a", Size: 2 << 20}, {ID: "00000000000b", Size: 1 << 20}}, nil
		},
		Snapshots: func(string) ([]banger.Snapshot, error) {
			return []banger.Snapshot{{Name: "before", Size: 4096, Layer: "0123456789b1"}}, nil
		},
	}
}

// TestUsage checks the figures of each kind of things, and of each VM and snapshot.
func TestUsage(t *testing.T) {
	r := reporter(t)
	list, err := r.Usage(true)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]wire.Usage{}
	for _, u := range list {
		name := strings.TrimSpace(u.Type + " " + u.Name)
		u.Type, u.Name = "", ""
		got[name] = u
	}
	delete(got, "Kernels") // and the size of images: a file system decides how much a directory takes
	images := got["Images"]
	images.Size = 0
	got["Images"] = images
	want := map[string]wire.Usage{
		"Images":          {Total: 2, Active: 1, Reclaimable: 1 << 20},
		"VMs":             {Total: 2, Active: 1, Size: 4096, Reclaimable: 4096},
		"VM box":          {Size: 4096},
		"VM web":          {Shared: 8192},
		"Snapshots":       {Total: 1, Size: 4096},
		"Snapshot before": {Size: 4096, Shared: 16384},
		"Layers":          {Total: 2, Active: 1, Size: 16384},
		"Templates":       {Total: 2, Active: 1, Size: 3 << 20, Reclaimable: 3 << 20},
		"Workspaces":      {Total: 1, Size: 4096},
	}
	for name, w := range want {
		if got[name] != w {
			t.Errorf("%s: %+v, not %+v", name, got[name], w)
		}
	}
	if len(got) != len(want) {
		t.Errorf("it has %v", got)
	}
	if few, err := r.Usage(false); err != nil || len(few) != len(list)-3 {
		t.Errorf("by kind alone it is %v, %v", few, err)
	}
	r.Library = stock{broken: errors.New("it broke")}
	if _, err := r.Usage(false); err == nil {
		t.Error("an error is lost")
	}
}

// TestChecksOfADaemon checks that a daemon's report has what its host has, what it says of itself, and its kernels.
func TestChecksOfADaemon(t *testing.T) {
	seen := map[string]wire.Check{}
	for _, c := range reporter(t).Checks(t.Context()) {
		seen[c.Name] = c
	}
	if kvm := seen["kvm"]; kvm.Result != wire.Warn || !strings.Contains(kvm.Detail, "there is no /dev/kvm") {
		t.Errorf("of KVM it says %+v", kvm)
	}
	for _, name := range []string{qemuProgram, "apt-get", "disk", "daemon", "names", "limits", "nested", "kernel"} {
		if seen[name].Result == "" {
			t.Errorf("it says nothing of %s", name)
		}
	}
}

// TestTheLog checks that the last lines are read, and that a daemon without a file says so.
func TestTheLog(t *testing.T) {
	r := &Reporter{}
	if err := r.CheckLog(); banger.CodeOf(err) != banger.CodeUnavailable {
		t.Errorf("without a file it is %v", err)
	}
	r.LogFile = filepath.Join(t.TempDir(), "daemon.log")
	if err := os.WriteFile(r.LogFile, []byte("one\ntwo\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := errors.Join(r.CheckLog(), r.Log(t.Context(), 1, false, &out)); err != nil || out.String() != "two\n" {
		t.Errorf("it reads %q, %v", out.String(), err)
	}
}
