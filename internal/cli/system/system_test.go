package system

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"banger"
	"banger/internal/api/wire"
	"banger/internal/cli/command"
	"banger/internal/dns"
	"banger/internal/host"
	"banger/internal/sshconf"
	"banger/internal/testing/apitest"
)

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// desk is a user with a home directory, whose daemon is handle, or nobody.
type desk struct {
	t              *testing.T
	dir            string
	paths          host.Paths
	stdout, stderr bytes.Buffer
	reloads        int
}

func newDesk(t *testing.T, handle http.HandlerFunc) *desk {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "desk-")
	check(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	d := &desk{t: t, dir: dir, paths: host.Paths{State: dir + "/state", Run: dir + "/run"}}
	if handle != nil {
		d.paths.Run = filepath.Dir(apitest.Serve(t, handle))
	}
	t.Setenv("HOME", dir)
	return d
}

// write makes a file below the desk's directory.
func (d *desk) write(name, text string) {
	d.t.Helper()
	path := filepath.Join(d.dir, name)
	check(d.t, os.MkdirAll(filepath.Dir(path), 0o700))
	check(d.t, os.WriteFile(path, []byte(text), 0o600))
}

// used makes the files of a daemon with a VM.
func (d *desk) used() *desk {
	d.t.Helper()
	for name, text := range map[string]string{
		"state/daemon.lock": "", "state/banger.db": "not a database", "state/dns.port": "15353\n",
		"state/images/sha256/aa/rootfs.ext4": "image", "state/kernels/linux/vmlinux": "kernel",
		"state/vms/0123456789ab/disk.ext4": "disk", "state/templates/ready/0123456789ae/template.json": "{}",
		"state/vms/0123456789ab.json":            `{"vm":{"id":"0123456789ab","name":"box"}}`,
		"run/daemon.lock":                        "",
		"state/layers/0123456789b0/layer.json":   `{"id":"0123456789b0","size":1048576,"file":"disk"}`,
		"state/layers/0123456789b0/disk":         "layer",
		"state/layers/0123456789b1/layer.json":   `{"id":"0123456789b1","parent":"0123456789b0","size":1048576,"file":"disk"}`,
		"state/layers/0123456789b1/disk":         "layer",
		"state/snapshots/0123456789c0/info.json": "{}",
		"state/workspaces/0a/record.json":        "{}",
		"state/reviews/0a.json":                  "{}",
	} {
		d.write(name, text)
	}
	return d
}

// banger runs one command of the family.
func (d *desk) banger(args ...string) (stdout, stderr string, err error) {
	d.t.Helper()
	null, err := os.Open(os.DevNull)
	check(d.t, err)
	defer null.Close()
	d.stdout.Reset()
	d.stderr.Reset()
	a := &command.App{Stdin: null, Stdout: &d.stdout, Stderr: &d.stderr}
	a.Reach(d.paths)
	c := New(a, Host{
		ShimArgv: []string{"banger", "no shim"}, Root: d.dir + "/root",
		ReloadResolver: func(context.Context) error { d.reloads++; return nil }, RefreshSSH: func(context.Context) {},
	})
	c.SetArgs(args)
	c.SilenceUsage, c.SilenceErrors = true, true
	err = c.ExecuteContext(d.t.Context())
	return d.stdout.String(), d.stderr.String(), err
}

func (d *desk) has(name string) bool {
	_, err := os.Lstat(filepath.Join(d.dir, name))
	return err == nil
}

// TestWhatWouldBeRemovedIsListed, and nothing is removed.
func TestWhatWouldBeRemovedIsListed(t *testing.T) {
	d := newDesk(t, nil).used()
	for _, verb := range []string{"reset", "uninstall"} {
		out, _, err := d.banger(verb, "--dry-run")
		check(t, err)
		for _, want := range []string{"Would be removed:\n", "  1 VM with their disks, 4 KiB: box\n", "  1 image, ",
			"  1 kernel, ", "  1 template, ", "  database, logs, caches and keys, ", "  the directory " + d.paths.State + "\n"} {
			if !strings.Contains(out, want) {
				t.Errorf("%s says %q, without %q", verb, out, want)
			}
		}
		if out, _, err := d.banger(verb); banger.CodeOf(err) != banger.CodeInvalid ||
			!strings.Contains(out, "This removes, and it cannot be undone:\n") {
			t.Errorf("without a yes %s says %q and ends with %v", verb, out, err)
		}
	}
	if !d.has("state/vms/0123456789ab/disk.ext4") {
		t.Error("the disk is gone")
	}
}

// TestResetAndUninstall have a configuration of ssh, and a file for systemd-resolved, which root alone removes.
func TestResetAndUninstall(t *testing.T) {
	root := os.Geteuid() == 0
	d := newDesk(t, nil).used()
	d.write("root/etc/systemd/resolved.conf.d/banger.conf", dropIn("127.0.0.1:15353"))
	d.write(".ssh/config", "Host other\n")
	d.write("state/ssh/config", "")
	check(t, sshconf.Install{User: d.dir + "/.ssh/config", Ours: d.paths.State + "/ssh/config",
		Record: d.paths.State + "/ssh/installed"}.Add())

	_, _, err := d.banger("reset", "--force")
	check(t, err)
	for name, want := range map[string]bool{
		"state/vms": false, "state/images": false, "state/kernels": false, "state/banger.db": false, "run": false,
		"state/dns.port": true, "state/ssh/installed": true, "state/ssh/config": true,
		"root/etc/systemd/resolved.conf.d/banger.conf": true,
	} {
		if d.has(name) != want {
			t.Errorf("after reset, %s is there: %v", name, !want)
		}
	}
	out, _, err := d.banger("uninstall", "-f")
	check(t, err)
	config, err := os.ReadFile(d.dir + "/.ssh/config")
	if err != nil || string(config) != "Host other\n" || d.has("state") || d.has("run") {
		t.Errorf("after uninstall there are %v and %v, and the configuration of ssh is %q, %v", d.has("state"), d.has("run"),
			config, err)
	}
	if d.has("root/etc/systemd/resolved.conf.d/banger.conf") == root || (d.reloads == 1) != root {
		t.Errorf("the resolver was told %d times", d.reloads)
	}
	if strings.Contains(out, "sudo banger dns uninstall") == root || !strings.Contains(out, "left to do: rm /") {
		t.Errorf("it says %q", out)
	}
	if _, stderr, err := d.banger("reset", "-f"); err != nil || stderr != "there is nothing to remove\n" {
		t.Errorf("the next time: %q, %v", stderr, err)
	}
}

// TestAnothersResolverIsLeft: the file names the server of another user.
func TestAnothersResolverIsLeft(t *testing.T) {
	d := newDesk(t, nil).used()
	d.write("root/etc/systemd/resolved.conf.d/banger.conf", dropIn("127.0.0.1:15354"))
	out, _, err := d.banger("uninstall", "-f")
	check(t, err)
	if !strings.Contains(out, "names a server that is not this user's, 127.0.0.1:15354: sudo banger dns uninstall\n") ||
		!d.has("root/etc/systemd/resolved.conf.d/banger.conf") || d.has("state") {
		t.Errorf("it says %q", out)
	}
}

// TestAnotherDirectoryIsRefused, as it is by reset itself.
func TestAnotherDirectoryIsRefused(t *testing.T) {
	d := newDesk(t, nil)
	d.write("state/letter", "")
	for _, verb := range []string{"reset", "uninstall"} {
		if _, _, err := d.banger(verb, "-f"); banger.CodeOf(err) != banger.CodeInvalid || !d.has("state/letter") {
			t.Errorf("%s: %v", verb, err)
		}
	}
}

func dropIn(server string) string {
	return "# Made by \"banger dns install\" and removed by \"banger dns uninstall\".\n[Resolve]\nDNS=" + server +
		"\nDomains=~" + dns.Domain + "\n"
}

// store is a daemon with a VM that runs, one that does not, two networks, and images.
func store(requests *[]string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet {
			body := new(bytes.Buffer)
			body.ReadFrom(r.Body)
			*requests = append(*requests, r.Method+" "+r.URL.RequestURI()+strings.TrimSpace(body.String()))
		}
		usage := []wire.Usage{{Type: "VMs", Total: 2, Active: 1, Size: 4096, Reclaimable: 4096}}
		if r.URL.Query().Get("each") == "true" {
			usage = append(usage, wire.Usage{Type: "VM", Name: "box", Size: 4096, Shared: 8192})
		}
		answers := map[string]any{
			"/v1/usage": usage,
			"/v1/vms": []banger.VM{
				{ID: "0123456789ab", Name: "box", State: banger.StateStopped},
				{ID: "0123456789ac", Name: "web", State: banger.StateRunning}},
			"/v1/vms/prune":       []banger.VM{{ID: "0123456789ab", Name: "box"}},
			"/v1/images/prune":    banger.Pruned{Images: []string{"sha256:b"}, Blobs: 2, Bytes: 1 << 20},
			"/v1/templates/prune": []banger.Template{{ID: "00000000000b", Size: 1 << 20}},
			"/v1/networks":        []banger.Network{{Name: "bridge"}, {Name: "lab"}, {Name: "used", VMs: []string{"web"}}},
		}
		if answer, ok := answers[r.URL.Path]; ok {
			json.NewEncoder(w).Encode(answer)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	}
}

// TestUsage checks how the daemon's figures are shown.
func TestUsage(t *testing.T) {
	var requests []string
	d := newDesk(t, store(&requests)).used()
	out, _, err := d.banger("df")
	check(t, err)
	var rows []string
	for line := range strings.Lines(out) {
		rows = append(rows, strings.Join(strings.Fields(line), " "))
	}
	if want := []string{"TYPE TOTAL ACTIVE SIZE RECLAIMABLE", "VMs 2 1 4 KiB 4 KiB"}; !slices.Equal(rows, want) {
		t.Errorf("it prints %q", rows)
	}
	out, _, err = d.banger("df", "--verbose")
	check(t, err)
	if !strings.Contains(out, "SHARED") || !strings.Contains(out, "\n  box ") || !strings.Contains(out, " 8 KiB\n") {
		t.Errorf("with each VM it prints %q", out)
	}
	out, _, err = d.banger("df", "--format", "json")
	check(t, err)
	var list []wire.Usage
	if err := json.Unmarshal([]byte(out), &list); err != nil || len(list) != 1 || list[0].Reclaimable != 4096 {
		t.Errorf("as JSON it is %q", out)
	}
}

func TestPrune(t *testing.T) {
	for _, all := range []bool{false, true} {
		var requests []string
		d := newDesk(t, store(&requests)).used()
		args := []string{"prune"}
		if all {
			args = append(args, "-a")
		}
		_, stderr, err := d.banger(args...)
		if banger.CodeOf(err) != banger.CodeInvalid || len(requests) > 0 ||
			!strings.HasPrefix(stderr, "This removes:\n  1 VM with their disks: box\n  1 network without VMs: lab\n") {
			t.Errorf("without a yes it says %q, does %q and ends with %v", stderr, requests, err)
		}
		out, stderr, err := d.banger(append(args, "-f")...)
		check(t, err)
		want := []string{"POST /v1/vms/prune", "DELETE /v1/networks/lab", "POST /v1/images/prune{}",
			"POST /v1/templates/prune?all=false&dry_run=false"}
		if all {
			want = append(want[:2:2], `POST /v1/images/prune{"all":true}`,
				"POST /v1/templates/prune?all=true&dry_run=false")
		}
		if out != "box\nlab\nsha256:b\n00000000000b\n" || !slices.Equal(requests, want) ||
			stderr != "removed 1 VM, 1 network, 1 image, 2 blobs and 1 template, 2 MiB\n" {
			t.Errorf("it prints %q and %q, and does %q", out, stderr, requests)
		}
	}
}
