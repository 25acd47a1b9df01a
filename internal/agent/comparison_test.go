package agent

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"banger"
	"banger/internal/guest"
	"banger/internal/testing/overlaytest"
)

// comparing returns a client of an agent with a system.
func comparing(sys system) guest.Client {
	s := newServer(sys, nil)
	return guest.Client{Dial: func(context.Context) (net.Conn, error) {
		ours, theirs := net.Pipe()
		go s.handle(guest.AgentPort, theirs) // ends with the stream
		return ours, nil
	}}
}

// TestAHelperCompares what its disks have, with patches of any length, and leaves out what banger makes in each VM.
func TestAHelperCompares(t *testing.T) {
	base := overlaytest.Directory(t)
	long := strings.Repeat("a line of text\n", 30_000) // more than one frame holds
	for name, text := range map[string]string{"rootfs/etc/passwd": "root\n", "rootfs/etc/hosts": "1\n",
		"before/upper/etc/passwd": "root\nold\n", "after/upper/etc/passwd": "root\nnew\n", "after/upper/long": long,
		"after/upper/etc/hosts": "2\n", "after/upper/etc/hostname": "x\n", "after/upper/run/banger-boot-id": "x\n"} {
		path := filepath.Join(base, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	dir := func(name string) string { return filepath.Join(base, name) }
	disks := map[string]string{"rootfs": dir("rootfs"), guest.CompareAfter: dir("after")}
	for _, both := range []bool{false, true} {
		if both {
			disks[guest.CompareBefore] = dir("before")
		}
		var got []string
		err := comparing(helper{disks}).Compare(t.Context(), true, func(f banger.FileChange) error {
			got = append(got, f.Path)
			want := "--- a/etc/passwd\n+++ b/etc/passwd\n@@ -1 +1,2 @@\n root\n+new\n"
			if both {
				want = "--- a/etc/passwd\n+++ b/etc/passwd\n@@ -1,2 +1,2 @@\n root\n-old\n+new\n"
			}
			if f.Path == "/long" {
				want = "--- /dev/null\n+++ b/long\n@@ -0,0 +1,30000 @@\n" + strings.Repeat("+a line of text\n", 30_000)
			}
			if f.Patch != want {
				t.Errorf("the patch of %s has %d bytes: %.200q", f.Path, len(f.Patch), f.Patch)
			}
			return nil
		})
		if list := strings.Join(got, " "); err != nil || list != "/etc/passwd /long" {
			t.Errorf("it is %s, %v", list, err)
		}
	}
	err := comparing(newHostSystem()).Compare(t.Context(), false, func(banger.FileChange) error { return nil })
	if banger.CodeOf(err) != banger.CodeInvalid || !strings.Contains(err.Error(), "no disks to compare") {
		t.Errorf("another guest: %v", err)
	}
}

// TestAHelperReadsWorkspaces of the disk that comes after, and changes none. The disk of a VM that never had one is
// empty.
func TestAHelperReadsWorkspaces(t *testing.T) {
	disk := t.TempDir()
	client := guest.Workspaces{Client: comparing(helper{map[string]string{guest.CompareAfter: disk}})}
	if list, err := client.List(t.Context()); err != nil || len(list) > 0 {
		t.Errorf("an empty disk has %+v, %v", list, err)
	}
	dir := filepath.Join(workspacesOn(disk), strings.Repeat("a", 32))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	record := `{"id":"` + filepath.Base(dir) + `","name":"box","path":"/box","baseline":"one","generation":1}`
	if err := os.WriteFile(dir+"/record.json", []byte(record), 0o600); err != nil {
		t.Fatal(err)
	}
	if list, err := client.List(t.Context()); err != nil || len(list) != 1 || list[0].Path != "/box" {
		t.Errorf("there are %+v, %v", list, err)
	}
	if _, err := client.Reset(t.Context(), "box"); banger.CodeOf(err) != banger.CodeConflict {
		t.Errorf("a reset: %v", err)
	}
	if err := client.Remove(t.Context(), "box", true); banger.CodeOf(err) != banger.CodeConflict {
		t.Errorf("a removal: %v", err)
	}
	if _, err := os.Stat(dir + "/record.json"); err != nil {
		t.Errorf("the record: %v", err)
	}
}
