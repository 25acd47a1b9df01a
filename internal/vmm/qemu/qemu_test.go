package qemu

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"banger/internal/vmm"
	"banger/internal/vmm/child"
)

var update = flag.Bool("update", false, "write the golden files anew")

// plain returns a VM as the supervisor requests it.
func plain(accel vmm.Accel) vmm.Config {
	return vmm.Config{ID: "0123456789ab", Dir: "/run/banger/vms/0123456789ab",
		Accel: accel, Kernel: "/k/vmlinux", Initrd: "/k/initrd.cpio", CPUs: 2, MemoryMiB: 512, Channel: "banger.agent",
		Drives: []vmm.Drive{{
			Serial:   "rootfs",
			Path:     "/images/rootfs.ext4",
			ReadOnly: true,
		}, {Serial: "disk", Path: "/disks/a,b.ext4"}}}
}

// TestArgv shows exactly what we ask of QEMU.
func TestArgv(t *testing.T) {
	nic := plain(vmm.AccelKVM)
	nic.NICs = []vmm.NIC{{MAC: "52:54:00:00:00:01", Socket: os.Stdin}, {MAC: "52:54:00:00:00:02", Tap: os.Stdin}}
	nic.Cmdline = "banger.init=image"
	snapshot := t.TempDir()
	restore := plain(vmm.AccelTCG)
	restore.Restore = snapshot
	for name, c := range map[string]struct {
		config vmm.Config
		v      version
	}{
		"argv-restore.txt": {restore, version{major: 7, minor: 2}},
		"argv-tcg.txt":     {plain(vmm.AccelTCG), version{major: 7, minor: 2}},
		"argv-kvm.txt":     {plain(vmm.AccelKVM), version{major: 10, minor: 0}},
		"argv-nic.txt":     {nic, version{major: 10, minor: 0}},
	} {
		t.Run(name, func(t *testing.T) {
			args := argv(c.config, c.v, c.config.Restore != "", 4)
			got := strings.ReplaceAll(strings.Join(args, "\n")+"\n", snapshot, "/snapshot")
			golden := filepath.Join("testdata", name)
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf(
					"QEMU is started with\n%s\nnot with %s; if that is meant, run: go test ./internal/vmm/qemu -run TestArgv -update",
					got, golden)
			}
		})
	}
}

func TestParseVersion(t *testing.T) {
	for out, want := range map[string]version{
		"QEMU emulator version 7.2.11 (Debian 1:7.2+dfsg-7+deb12u7)\nCopyright": {7, 2, "7.2.11"},
		"QEMU emulator version 10.0.2 (Debian)":                                 {10, 0, "10.0.2"},
		"QEMU emulator version 9.1.50 (v9.1.0-rc1)":                             {9, 1, "9.1.50"},
		"version 8.0":          {8, 0, "8.0"},
		"version 11.2-rc1":     {11, 2, "11.2-rc1"},
		"version 10.0.2~bpo+1": {10, 0, "10.0.2~bpo+1"},
	} {
		if got, err := parseVersion(out); err != nil || got != want {
			t.Errorf("%q is version %+v, %v, not %+v", out, got, err, want)
		}
		// A later Start gets what Version has returned.
		if again, err := parseVersion("version " + want.text); err != nil || again != want {
			t.Errorf("%q is read back as %+v, %v", want.text, again, err)
		}
	}
	for _, out := range []string{"", "QEMU", "version", "version 7", "version x.y", strings.Repeat("x", 1<<16)} {
		if got, err := parseVersion(out); err == nil || len(err.Error()) > 200 {
			t.Errorf("%.20q is version %+v, %v", out, got, err)
		}
	}
}

func TestMinVersion(t *testing.T) {
	for text, ok := range map[string]bool{
		"5.2.0":  false,
		"7.1.9":  false,
		"7.2.0":  true,
		"7.10.0": true,
		"8.0.0":  true,
		"10.0.0": true,
	} {
		v, err := parseVersion("version " + text)
		if err != nil || v.less(minVersion) == ok {
			t.Errorf("%s is new enough: %v, want %v (%v)", text, !v.less(minVersion), ok, err)
		}
	}
}

// TestReason: how QEMU ended, by its wait status, the console's end and stderr.
func TestReason(t *testing.T) {
	const panicked = "[    1.2] Kernel panic - not syncing: VFS: Unable to mount root fs"
	noise := strings.Repeat("noise\n", 16<<10)
	for name, c := range map[string]struct {
		script          string
		console, stderr string
		want            vmm.Exit
	}{
		"power-off": {"exit 0", "reboot: Power down\n", "a warning", vmm.Exit{Reason: "the guest powered off"}},
		"panic": {"exit 0", "booting\n" + panicked, "",
			vmm.Exit{Panic: true, Reason: "the guest kernel panicked"}},
		"panic after much noise": {"exit 0", noise + panicked, "",
			vmm.Exit{Panic: true, Reason: "the guest kernel panicked"}},
		"panic of an earlier age": {"exit 0", panicked + noise + noise, "", vmm.Exit{Reason: "the guest powered off"}},
		"an error of QEMU": {"exit 1", "", "a warning\nqemu-system-x86_64: -kernel x: No such file\n",
			vmm.Exit{Code: 1, Reason: "QEMU failed with code 1: -kernel x: No such file"}},
		"an error without words": {"exit 3", "", "", vmm.Exit{Code: 3, Reason: "QEMU failed with code 3: "}},
		"a kill": {"kill -9 $$", "", "", vmm.Exit{
			Signal: 9,
			Reason: "QEMU was killed by signal 9 (killed)",
		}},
		"a kill of who had panicked": {"kill -9 $$", panicked, "", vmm.Exit{
			Signal: 9,
			Reason: "QEMU was killed by signal 9 (killed)",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			p := &child.Process{}
			for chunk := []byte(c.console); len(chunk) > 0; { // as a pipe gives it
				n := min(len(chunk), 4099)
				p.Stdout.Write(chunk[:n])
				chunk = chunk[n:]
			}
			p.Stderr.Write([]byte(c.stderr))
			if got := reason(p, ended(t, c.script)); got != c.want {
				t.Errorf("it is told as %+v, not %+v", got, c.want)
			}
		})
	}
}

// ended runs a script and returns how its shell ended.
func ended(t *testing.T, script string) *os.ProcessState {
	t.Helper()
	p, err := os.StartProcess("/bin/sh", []string{"sh", "-c", script},
		&os.ProcAttr{Sys: &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}})
	if err != nil {
		t.Fatal(err)
	}
	st, err := p.Wait()
	if err != nil {
		t.Fatal(err)
	}
	return st
}
