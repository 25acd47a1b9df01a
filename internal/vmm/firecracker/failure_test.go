package firecracker_test

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"banger/internal/testing/vmmtest"
	"banger/internal/vmm"
	"banger/internal/vmm/firecracker"
)

// TestWhatIsNoFirecracker: programs that are absent, too old or something else are refused.
func TestWhatIsNoFirecracker(t *testing.T) {
	// This is the header of a program for arm64.
	foreign := program(t,
		"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00\x01\x00\x00\x00"+strings.Repeat("\x00", 128))
	for binary, words := range map[string]string{
		"firecracker-nonesuch": "firecracker-nonesuch is not installed",
		foreign:                "is not a program for this host's CPUs",
		"/bin/true":            "/bin/true is not Firecracker",
		"/bin/false":           "exit status 1",
		program(
			t,
			"#!/bin/sh\necho Firecracker v1.11.0\n"): "Firecracker 1.11.0 is too old, 1.12.0 or later is needed",
		program(t, "#!/bin/sh\necho Firecracker of an unknown age\n"):       "names no version",
		program(t, "#!/bin/sh\nhead -c 100000000 /dev/zero | tr '\\0' 1\n"): "is not Firecracker",
	} {
		d := firecracker.Driver{Binary: binary}
		v, err := d.Version(t.Context())
		if err == nil || !strings.Contains(err.Error(), words) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s has version %q, and the error is %v, not one with %q", binary, v, err, words)
		}
		if _, err := d.Start(t.Context(), config(t), vmmtest.NewConsole()); err == nil {
			t.Errorf("%s starts a VM", binary)
		}
	}
}

// TestAStartThatFailsSaysWhyAndLeavesNothing, whatever goes wrong on the way.
func TestAStartThatFailsSaysWhyAndLeavesNothing(t *testing.T) {
	for name, c := range map[string]struct {
		spoil   func(*vmm.Config)
		program string // instead of the double; DOUBLE in it is the double
		words   string
	}{
		"no KVM":          {func(c *vmm.Config) { c.Accel = vmm.AccelTCG }, "", "Firecracker needs KVM"},
		"a packed kernel": {func(c *vmm.Config) { c.Kernel = c.Initrd }, "", "is not an ELF file"},
		"no CPU":          {func(c *vmm.Config) { c.CPUs = 0 }, "", "1 to 32 CPUs, not 0"},
		"too many CPUs":   {func(c *vmm.Config) { c.CPUs = 33 }, "", "1 to 32 CPUs, not 33"},
		"too long a path": {func(c *vmm.Config) { c.Dir += "/" + strings.Repeat("x", 90) }, "", "and 107 are possible"},
		"a network it lacks": {func(c *vmm.Config) {
			c.NICs = []vmm.NIC{{MAC: "02:00:00:00:00:01"}}
		}, "", "no network but taps"},
		"an option it lacks": {func(c *vmm.Config) { c.Options = map[string]string{"x": "y"} }, "", `no option "x"`},
		"a tap that is refused": {func(c *vmm.Config) {
			c.NICs = []vmm.NIC{{MAC: "02:00:00:00:00:01", Device: "tap0"}}
			c.Namespaces, c.Wrap = true, []string{"setpriv", "--inh-caps=-all", "--ambient-caps=-all", "--bounding-set=-all"}
		}, "", "Firecracker refused PUT /network-interfaces/eth0: Network config error: Could not create the network device: Open tap device failed: operation not permitted"},
		"a drive that is none": {func(c *vmm.Config) {
			c.Drives[1].Path = c.Dir
		}, "", "Firecracker refused PUT /drives/disk: Drive config error"},
		"a socket in its place": {func(c *vmm.Config) {
			if err := os.Mkdir(filepath.Join(c.Dir, "v.sock"), 0o700); err != nil {
				t.Fatal(err)
			}
		}, "", "Firecracker refused PUT /vsock"},
		"no API":             {nil, "exec sleep 100", "waiting for Firecracker's API: context deadline exceeded"},
		"the API of another": {nil, `shift 2; exec DOUBLE --id another "$@"`, `the API is that of VM "another"`},
		"the API of a version": {nil, `DOUBLE_VERSION=1.15.0 exec DOUBLE "$@"`,
			`the API is that of version "1.15.0", and 1.16.1 was expected`},
		"it ends at once": {nil, `echo cannot >&2; exit 1`, "Firecracker failed (code 1): cannot"},
		"it dies when configured": {nil, `DOUBLE_DIES_AT=/boot-source exec DOUBLE "$@"`,
			"Firecracker made a system call that its filter forbids (code 148): [ERROR] Shutting down VM"},
		"it dies when started":     {nil, `DOUBLE_DIES_AT=/actions exec DOUBLE "$@"`, "(code 148)"},
		"it is killed when begun":  {nil, `DOUBLE_DIES_AT=/ DOUBLE "$@"; kill -9 $$`, "Firecracker was killed by signal 9"},
		"it cannot make its guest": {func(c *vmm.Config) { c.MemoryMiB = 1 << 30 }, "", "Firecracker"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := config(t)
			cfg.Version = "1.16.1"
			if c.spoil != nil {
				c.spoil(&cfg)
			}
			d := firecracker.Driver{Binary: double(t)}
			if c.program != "" {
				d.Binary = program(t, "#!/bin/sh\n"+strings.ReplaceAll(c.program, "DOUBLE ", double(t)+" "))
			}
			before := files(t, filepath.Dir(cfg.Dir))
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			defer cancel()
			p, err := d.Start(ctx, cfg, vmmtest.NewConsole())
			if err == nil {
				p.Kill()
				<-p.Done()
				t.Fatal("it starts all the same")
			}
			if !strings.Contains(err.Error(), c.words) || strings.Contains(err.Error(), "\n") {
				t.Errorf("the error is\n%v, not one with\n%s", err, c.words)
			}
			if after := files(t, filepath.Dir(cfg.Dir)); after != before && name != "a socket in its place" {
				t.Errorf("it leaves\n%s\nwhere there was\n%s", after, before)
			}
		})
	}
}

// TestAGuestPanicIsToldAsOne boots a kernel that finds no init.
func TestAGuestPanicIsToldAsOne(t *testing.T) {
	c := config(t)
	c.Initrd = filepath.Join(filepath.Dir(c.Dir), "empty")
	if err := os.WriteFile(c.Initrd, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	console := vmmtest.NewConsole()
	p, err := firecracker.Driver{Binary: double(t)}.Start(t.Context(), c, console)
	if err != nil {
		t.Fatal(err)
	}
	exit := (&vmmtest.VM{Process: p}).AwaitEnd(t)
	if !exit.Panic || !strings.Contains(exit.Reason, "panicked") {
		t.Errorf("the guest ends with %+v; its console says\n%s", exit, console)
	}
}

// program makes an executable file.
func program(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "firecracker")
	if err := os.WriteFile(path, []byte(content), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// files lists the files in a directory.
func files(t *testing.T, dir string) string {
	t.Helper()
	var list []string
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		list = append(list, path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(list, "\n")
}
