package qemu_test

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"banger"
	"banger/internal/disk"
	"banger/internal/ext4"
	"banger/internal/kernel"
	"banger/internal/vmm"
	"banger/internal/vmm/qemu"
	"banger/internal/vmm/vmmtest"
)

var shared string // directory of what all boots share

func TestMain(m *testing.M) {
	var err error
	if shared, err = os.MkdirTemp("", "qemu"); err != nil {
		panic(err)
	}
	code := m.Run()
	os.RemoveAll(shared)
	os.Exit(code)
}

// parts are what a guest boots from: the distribution's kernel, an initramfs
// with the agent, and a root file system with one program.
type parts struct{ kernel, initrd, rootfs string }

var build = sync.OnceValues(func() (p parts, err error) {
	agent, err := compile("banger/cmd/banger-agent", "agent")
	if err != nil {
		return p, err
	}
	echo, err := compile("./testdata/echo", "echo")
	if err != nil {
		return p, err
	}
	kernels, err := kernel.Open(filepath.Join(shared, "kernels"))
	if err != nil {
		return p, err
	}
	k, err := kernels.Pull(context.Background(), banger.Discard)
	if err != nil {
		return p, err
	}
	p.kernel, p.rootfs = kernels.Vmlinux(k.Name), filepath.Join(shared, "rootfs.ext4")
	if p.initrd, err = kernels.Initrd(k.Name, agent); err != nil {
		return p, err
	}
	return p, writeRootfs(p.rootfs, echo)
})

func compile(pkg, name string) ([]byte, error) {
	path := filepath.Join(shared, name)
	cmd := exec.Command("go", "build", "-ldflags", "-s -w", "-o", path, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, &exec.Error{Name: string(out), Err: err}
	}
	return os.ReadFile(path)
}

// writeRootfs makes a root file system that holds /bin/echo alone.
func writeRootfs(path string, echo []byte) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	w, err := ext4.New(f, ext4.Options{Size: ext4.MinSize})
	if err != nil {
		return err
	}
	data, err := w.WriteData(bytes.NewReader(echo))
	if err != nil {
		return err
	}
	dir := func(children map[string]*ext4.Node) *ext4.Node {
		return &ext4.Node{Mode: syscall.S_IFDIR | 0o755, Children: children}
	}
	program := &ext4.Node{Mode: syscall.S_IFREG | 0o755, Data: data}
	return w.Finish(dir(map[string]*ext4.Node{"bin": dir(map[string]*ext4.Node{"echo": program})}))
}

// config is a guest under emulation, which runs on every host.
func config(t *testing.T) vmm.Config {
	t.Helper()
	p, err := build()
	if err != nil {
		t.Fatal(err)
	}
	dir := vmmtest.Dir(t)
	c := vmm.Config{ID: banger.NewID(), Dir: filepath.Join(dir, "run"), Memory: filepath.Join(dir, "ram"), Accel: vmm.AccelTCG,
		Kernel: p.kernel, Initrd: p.initrd, CPUs: 1, MemoryMiB: 192, Channel: "banger.agent",
		Drives: []vmm.Drive{{Serial: "rootfs", Path: p.rootfs, ReadOnly: true}, {Serial: "disk", Path: filepath.Join(dir, "disk,of a VM")}}}
	if err := os.Mkdir(c.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := disk.Create(c.Drives[1].Path, 64<<20); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestQEMUConforms(t *testing.T) { vmmtest.Run(t, qemu.Driver{}, config) }

// TestAGuestPanicIsToldAsOne boots a kernel that finds no init.
func TestAGuestPanicIsToldAsOne(t *testing.T) {
	c := config(t)
	c.Initrd = filepath.Join(filepath.Dir(c.Dir), "empty")
	if err := os.WriteFile(c.Initrd, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	console := vmmtest.NewConsole()
	p, err := qemu.Driver{}.Start(t.Context(), c, console)
	if err != nil {
		t.Fatal(err)
	}
	exit := (&vmmtest.VM{Process: p}).AwaitEnd(t)
	if !exit.Panic || exit.Code != 0 || !strings.Contains(exit.Reason, "panicked") {
		t.Errorf("the guest ends with %+v; its console says\n%s", exit, console)
	}
}

func TestAQEMUThatIsAbsentOrTooOldIsRefused(t *testing.T) {
	old := filepath.Join(t.TempDir(), "old-qemu")
	if err := os.WriteFile(old, []byte("#!/bin/sh\necho QEMU emulator version 5.2.0\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for binary, words := range map[string]string{"/nonexistent/qemu": "no such file", "qemu-system-nonesuch": "not installed", old: "too old", "/bin/true": "cannot read a version", "/bin/false": "exit status 1"} {
		d := qemu.Driver{Binary: binary}
		if v, err := d.Version(t.Context()); err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%s has version %q, and the error is %v, not one with %q", binary, v, err, words)
		}
		if _, err := d.Start(t.Context(), vmm.Config{Accel: vmm.AccelTCG}, vmmtest.NewConsole()); err == nil {
			t.Errorf("%s starts a VM", binary)
		}
	}
}
