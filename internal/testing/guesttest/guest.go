// Package guesttest makes what a real guest boots from, for tests of drivers: the distribution's
// kernel, an initramfs with the agent, and a root file system with one program. On hosts without Go
// or apt it takes these parts from a directory (PartsVariable). It must not know any VMM. Only
// tests import it.
package guesttest

import (
	"bytes"
	"context"
	"fmt"
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
	"banger/internal/testing/vmmtest"
	"banger/internal/vmm"
)

// PartsVariable names the environment variable for a directory of ready-made parts: vmlinux,
// initrd, modules.ext4, and the program of internal/testing/guesttest/echo as echo. Other programs that a test would
// compile are in the same directory.
const PartsVariable = "BANGER_TEST_PARTS"

// Parts are made once per test binary, in a directory that Main removes.
type Parts struct {
	dir  string
	once sync.Once
	err  error

	kernel, initrd, modules, rootfs string
}

// Main runs the tests of a package that have Parts, and returns the exit code.
func Main(m *testing.M) (p *Parts, run func() int) {
	p = &Parts{}
	return p, func() int {
		var err error
		if p.dir, err = os.MkdirTemp("", "guest"); err != nil {
			panic(err)
		}
		defer os.RemoveAll(p.dir)
		return m.Run()
	}
}

// Dir returns the directory that all tests share.
func (p *Parts) Dir() string { return p.dir }

// Config returns the Config of a guest with 192 MiB and one CPU. Its directories are new. It skips a test of go test
// -short, which boots no guest.
func (p *Parts) Config(t *testing.T, accel vmm.Accel) vmm.Config {
	t.Helper()
	if testing.Short() {
		t.Skip("this boots a real guest; go test without -short does")
	}
	p.once.Do(func() { p.err = p.build() })
	if p.err != nil {
		t.Fatal(p.err)
	}
	dir := vmmtest.Dir(t)
	c := vmm.Config{ID: banger.NewID(), Dir: filepath.Join(dir, "run"), Accel: accel,
		Kernel: p.kernel, Initrd: p.initrd, CPUs: 1, MemoryMiB: 192, Channel: "banger.agent",
		Drives: []vmm.Drive{
			{Serial: "rootfs", Path: p.rootfs, ReadOnly: true},
			{Serial: "disk", Path: filepath.Join(dir, "disk,of a VM")},
			{Serial: "modules", Path: p.modules, ReadOnly: true},
		}}
	if err := os.Mkdir(c.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := disk.Create(c.Drives[1].Path, 64<<20); err != nil {
		t.Fatal(err)
	}
	return c
}

func (p *Parts) build() error {
	p.rootfs = filepath.Join(p.dir, "rootfs.ext4")
	if given := os.Getenv(PartsVariable); given != "" {
		p.kernel, p.initrd = filepath.Join(given, "vmlinux"), filepath.Join(given, "initrd")
		p.modules = filepath.Join(given, "modules.ext4")
		return writeRootfs(p.rootfs, filepath.Join(given, "echo"))
	}
	agent, err := p.Compile("banger/cmd/banger-agent", "agent")
	if err != nil {
		return err
	}
	echo, err := p.Compile("banger/internal/testing/guesttest/echo", "echo")
	if err != nil {
		return err
	}
	kernels, err := kernel.Open(filepath.Join(p.dir, "kernels"))
	if err != nil {
		return err
	}
	k, err := kernels.Pull(context.Background(), banger.Discard)
	if err != nil {
		return err
	}
	p.kernel, p.modules = kernels.Vmlinux(k.Name), kernels.ModulesDisk(k.Name)
	data, err := os.ReadFile(agent)
	if err != nil {
		return err
	}
	if p.initrd, _, err = kernels.Initrd(k.Name, data, func(string) bool { return false }); err != nil {
		return err
	}
	return writeRootfs(p.rootfs, echo)
}

// Compile builds a static program and returns its path, or the path of the ready-made program.
func (p *Parts) Compile(pkg, name string) (string, error) {
	if given := os.Getenv(PartsVariable); given != "" {
		path := filepath.Join(given, name)
		_, err := os.Stat(path)
		return path, err
	}
	path := filepath.Join(p.dir, name)
	cmd := exec.Command("go", "build", "-ldflags", "-s -w", "-o", path, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building %s: %w\n%s", pkg, err, out)
	}
	return path, nil
}

// MachineID is the machine id in the image.
const MachineID = "0123456789abcdef0123456789abcdef"

// writeRootfs makes a root file system with one program, which has several names in /bin.
func writeRootfs(path, echo string) error {
	content, err := os.ReadFile(echo)
	if err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	w, err := ext4.New(f, ext4.Options{Size: ext4.MinSize})
	if err != nil {
		return err
	}
	data, err := w.WriteData(bytes.NewReader(content))
	if err != nil {
		return err
	}
	dir := func(children map[string]*ext4.Node) *ext4.Node {
		return &ext4.Node{Mode: syscall.S_IFDIR | 0o755, Children: children}
	}
	program := &ext4.Node{Mode: syscall.S_IFREG | 0o755, Data: data}
	id, err := w.WriteData(strings.NewReader(MachineID + "\n"))
	if err != nil {
		return err
	}
	return w.Finish(dir(map[string]*ext4.Node{
		"bin": dir(map[string]*ext4.Node{
			"echo":  program,
			"state": {Mode: syscall.S_IFLNK | 0o777, Target: "echo"},
			"cat":   {Mode: syscall.S_IFLNK | 0o777, Target: "echo"},
			"kill":  {Mode: syscall.S_IFLNK | 0o777, Target: "echo"},
			"fill":  {Mode: syscall.S_IFLNK | 0o777, Target: "echo"},
			"dial":  {Mode: syscall.S_IFLNK | 0o777, Target: "echo"},
			"disk":  {Mode: syscall.S_IFLNK | 0o777, Target: "echo"},

			"witness": {Mode: syscall.S_IFLNK | 0o777, Target: "echo"},
			"testify": {Mode: syscall.S_IFLNK | 0o777, Target: "echo"},
		}),
		"sbin": dir(map[string]*ext4.Node{"init": {Mode: syscall.S_IFLNK | 0o777, Target: "../bin/echo"}}),
		"etc":  dir(map[string]*ext4.Node{"machine-id": {Mode: syscall.S_IFREG | 0o444, Data: id}}),
	}))
}
