package firecracker

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"banger/internal/vmm"
)

// TestWhatIsNotRestored: each refusal comes before anything is started, with its reason.
func TestWhatIsNotRestored(t *testing.T) {
	v15, v16 := version{1, 15, 0}, version{1, 16, 1}
	for name, r := range map[string]struct {
		v, now version // of the snapshot, of the restore; zero: 1.16.1, the same
		o      options
		spoil  func(c *vmm.Config)
		err    string // "": it fits
	}{
		"the same":           {spoil: func(*vmm.Config) {}},
		"the same, of 1.15":  {v: v15, spoil: func(*vmm.Config) {}},
		"elsewhere":          {spoil: func(c *vmm.Config) { c.Dir += "2" }},
		"elsewhere, of 1.15": {v: v15, spoil: func(c *vmm.Config) { c.Dir += "2" }},
		"another version": {
			v:     v15,
			now:   v16,
			spoil: func(*vmm.Config) {},
			err:   "the VMM's version was 1.15.0, and is 1.16.1",
		},
		"another place of a drive": {
			spoil: func(c *vmm.Config) { c.Drives[0].Path += "2" },
			err:   "Firecracker 1.16.1 looks for the drive rootfs where it was, at ",
		},
		"drives in another order": {
			spoil: func(c *vmm.Config) { c.Drives[0], c.Drives[1] = c.Drives[1], c.Drives[0] },
			err:   "the list of drives",
		},
		"another MAC and tap": {spoil: func(c *vmm.Config) {
			c.NICs = []vmm.NIC{{MAC: "02:00:00:00:00:02", Device: "tap1"}}
		}},
		"no network": {
			spoil: func(c *vmm.Config) { c.NICs = nil },
			err:   "the number of network devices was 1, and is 0",
		},
		"an option that was not": {
			spoil: func(c *vmm.Config) { c.Options = map[string]string{"cpu_template": "T2"} },
			err:   "the VMM's options",
		},
		"huge pages": {
			o:     options{hugePages: hugePages2M},
			spoil: func(*vmm.Config) {},
			err:   "the VM has huge pages",
		},
		"no snapshot": {
			spoil: func(c *vmm.Config) { c.Restore += "2" },
			err:   "there is no snapshot in ",
		},
		"a snapshot that was not finished": {
			spoil: func(c *vmm.Config) { os.Remove(filepath.Join(c.Restore, "snapshot.json")) },
			err:   "there is no snapshot in ",
		},
		"a manifest cut off": {
			spoil: func(c *vmm.Config) { os.Truncate(filepath.Join(c.Restore, "snapshot.json"), 100) },
			err:   "cannot be read",
		},
	} {
		t.Run(name, func(t *testing.T) {
			if r.v == (version{}) {
				r.v = v16
			}
			if r.now == (version{}) {
				r.now = r.v
			}
			c := onDisk(t)
			m, err := manifestOf(c, r.v, false)
			if err == nil {
				err = vmm.CommitSnapshot(c.Restore, m)
			}
			if err != nil {
				t.Fatal(err)
			}
			r.spoil(&c)
			err = checkSnapshot(c, r.now, &r.o, false)
			if (err == nil) != (r.err == "") || err != nil &&
				(!strings.Contains(err.Error(), r.err) || strings.Contains(err.Error(), "\n")) {
				t.Errorf("the error is %v, not one with %q", err, r.err)
			}
		})
	}
}

// TestTheClockIsAskedForWhereItIs: Firecracker fails a load that asks for a time of day which the
// snapshot does not have.
func TestTheClockIsAskedForWhereItIs(t *testing.T) {
	for name, r := range map[string]struct {
		arch, release, source string
		want                  bool
	}{
		"as it should be":     {"amd64", "6.1.0-44-amd64", "tsc", true},
		"the first":           {"amd64", "5.16.0", "tsc", true},
		"too old":             {"amd64", "5.10.0-30-amd64", "tsc", false},
		"much too old":        {"amd64", "4.19.0", "tsc", false},
		"a host that is a VM": {"amd64", "6.1.0", "kvm-clock", false},
		"an unstable TSC":     {"amd64", "6.1.0", "hpet", false},
		"arm64":               {"arm64", "6.1.0", "arch_sys_counter", false},
		"no release":          {"amd64", "unknown", "tsc", false},
	} {
		if got := savesTime(r.arch, r.release, r.source); got != r.want {
			t.Errorf("%s: it is %v", name, got)
		}
	}
	c := onDisk(t)
	for _, had := range []bool{true, false} {
		m, err := manifestOf(c, version{1, 16, 1}, false)
		if err != nil {
			t.Fatal(err)
		}
		delete(m.Private, privateClock)
		if had {
			m.Private[privateClock] = clockRealtime
		}
		if err := vmm.CommitSnapshot(c.Restore, m); err != nil {
			t.Fatal(err)
		}
		var o options
		err = checkSnapshot(c, version{1, 16, 1}, &o, false)
		if err != nil || o.clock != (had && hostSavesTime()) {
			t.Errorf("of a snapshot that has the time (%v), here (%v), it is asked: %v, %v", had, hostSavesTime(), o.clock, err)
		}
	}
}

// onDisk returns a Config whose files exist.
func onDisk(t *testing.T) vmm.Config {
	t.Helper()
	dir := t.TempDir()
	file := func(name string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(name[:1]), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	c := vmm.Config{Dir: filepath.Join(dir, "run"), Accel: vmm.AccelKVM, Kernel: file("vmlinux"), Initrd: file("initrd"),
		CPUs: 1, MemoryMiB: 128,
		NICs:    []vmm.NIC{{MAC: "02:00:00:00:00:01", Device: "tap0"}},
		Drives:  []vmm.Drive{{Serial: "rootfs", Path: file("rootfs"), ReadOnly: true}, {Serial: "disk", Path: file("disk")}},
		Restore: filepath.Join(dir, "snapshot")}
	file("rootfs2")
	if err := os.Mkdir(c.Restore, 0o700); err != nil {
		t.Fatal(err)
	}
	return c
}
