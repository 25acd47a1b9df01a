package store

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"banger"
)

// oldRows are the rows in testdata/vms-2026-11.json as this banger must read them. The file holds what a banger of
// November 2026 wrote. It is kept for ever: a change of banger.VM must not lose what users have stored.
func oldRows() []Row {
	at := func(day, second, nanos int) time.Time {
		return time.Date(2026, 11, day, 10, 0, second, nanos, time.UTC)
	}
	zero := 0
	return []Row{{Slot: 1, Committed: true, VM: banger.VM{
		ID:   "0123456789ab",
		Name: "web",
		Spec: banger.Spec{
			Name:       "web",
			Image:      "docker.io/library/nginx:1.27",
			Pull:       "always",
			Platform:   "linux/amd64",
			Kernel:     "6.1.0-41-cloud-amd64",
			VMM:        "qemu",
			CPUs:       2,
			CPUModel:   "EPYC-v3,-rdrand",
			Nested:     "force",
			Memory:     1 << 30,
			Disk:       10 << 30,
			Hostname:   "web.example",
			Labels:     map[string]string{"tier": "front", "empty": ""},
			Init:       "agent",
			Network:    "user",
			AutoRemove: true,
			Untrusted:  true,
			Policy: &banger.Policy{Default: "deny", Rules: []banger.Rule{
				{Action: "allow", To: "*.debian.org", Protocol: "tcp", Ports: []banger.PortRange{{First: 80, Last: 80},
					{First: 8000, Last: 8100}}},
				{Action: "deny", To: "any"},
			}},
			Forwards:   []banger.Forward{{Protocol: "tcp", HostIP: "127.0.0.1", HostPort: 8080, GuestPort: 80}},
			PublishAll: true,
			CA:         "-----BEGIN CERTIFICATE-----\nMII=\n-----END CERTIFICATE-----\n",
			Entrypoint: []string{"/docker-entrypoint.sh"},
			Cmd:        []string{"nginx", "-g", "daemon off;"},
			Env:        []string{"A=1", "EMPTY="},
			WorkingDir: "/srv",
			User:       "www-data:www-data",
			TTY:        true,
			Attach:     true,
		},
		State:       banger.StateRunning,
		Reason:      "its main command could not be started",
		ExitCode:    &zero,
		CreatedAt:   at(1, 0, 123456789),
		StartedAt:   at(1, 1, 0),
		FinishedAt:  at(1, 2, 0),
		ImageDigest: "sha256:0000000000000000000000000000000000000000000000000000000000000001",
		Kernel:      "6.1.0-41-cloud-amd64",
		Initramfs:   "initrd-963d8ba7f4ef6906.cpio",
		VMM:         "qemu 7.2.22",
		Isolation:   banger.IsolationKVM,
		Timings:     []banger.Timing{{Stage: "image", Millis: 12}, {Stage: "agent", Millis: 340}},
		Address:     "127.74.0.1",
		Forwards:    []banger.Forward{{Protocol: "udp", HostIP: "0.0.0.0", HostPort: 40001, GuestPort: 53}},
		Limits:      &banger.Limits{Memory: 1400000000, CPUs: 2, Tasks: 200},
		SSHHostKey:  "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDBv0t0DOpBDHrqptXS09Vm4zy6pBwYNxM91jNNoIl6G",
		Main: &banger.Exec{
			Args:  []string{"/docker-entrypoint.sh", "nginx"},
			Env:   []string{"PATH=/usr/bin", "A=1"},
			Dir:   "/srv",
			User:  "www-data",
			TTY:   true,
			Stdin: true,
			Rows:  24,
			Cols:  80,
			Main:  true,
		},
	}}, {Slot: 3, VM: banger.VM{
		ID:        "ba9876543210",
		Name:      "bare",
		Spec:      banger.Spec{Image: "debian-bookworm"},
		State:     banger.StateFailed,
		CreatedAt: at(2, 0, 0),
	}}}
}

// TestOldRowsAreReadWhole checks each field of rows that an earlier banger wrote, and that storing a VM again loses
// nothing of its document.
func TestOldRowsAreReadWhole(t *testing.T) {
	text, err := os.ReadFile("testdata/vms-2026-11.json")
	if err != nil {
		t.Fatal(err)
	}
	var old struct {
		VMs []struct {
			Slot      int
			Committed bool
			Document  json.RawMessage
		}
		Networks []json.RawMessage
	}
	if err := json.Unmarshal(text, &old); err != nil {
		t.Fatal(err)
	}
	s := open(t, filepath.Join(t.TempDir(), "banger.db"))
	insert := func(query string, args ...any) {
		t.Helper()
		if _, err := s.db.ExecContext(t.Context(), query, args...); err != nil {
			t.Fatal(err)
		}
	}
	for _, row := range old.VMs {
		var key struct{ ID, Name string }
		if err := json.Unmarshal(row.Document, &key); err != nil {
			t.Fatal(err)
		}
		insert(`INSERT INTO vm (id, name, slot, committed, document) VALUES (?, ?, ?, ?, ?)`,
			key.ID, key.Name, row.Slot, row.Committed, string(row.Document))
	}
	insert(`INSERT INTO network (name, document) VALUES ('lab', ?)`, string(old.Networks[0]))

	rows, err := s.List(t.Context())
	if want := oldRows(); err != nil || len(rows) != len(want) {
		t.Fatalf("the rows are %+v, %v", rows, err)
	}
	for i, want := range oldRows() {
		compareFields(t, "VM "+want.VM.Name, reflect.ValueOf(rows[i]), reflect.ValueOf(want))
		sameDocument(t, rows[i].VM, old.VMs[i].Document)
	}
	networks, err := s.Networks(t.Context())
	want := banger.Network{Name: "lab", Subnet: "172.30.7.0/24", Isolated: true, VMs: []string{"web"},
		CreatedAt: time.Date(2026, 11, 3, 10, 0, 0, 0, time.UTC)}
	if err != nil || len(networks) != 1 || !reflect.DeepEqual(networks[0], want) {
		t.Errorf("the networks are %+v, %v", networks, err)
	}
}

// compareFields compares two structs field by field.
func compareFields(t *testing.T, path string, got, want reflect.Value) {
	t.Helper()
	for i := range want.NumField() {
		name := path + "." + want.Type().Field(i).Name
		g, w := got.Field(i), want.Field(i)
		if w.Kind() == reflect.Struct && w.Type() != reflect.TypeFor[time.Time]() {
			compareFields(t, name, g, w)
		} else if !reflect.DeepEqual(g.Interface(), w.Interface()) {
			t.Errorf("%s is %v, not %v", name, g, w)
		}
	}
}

// sameDocument checks that vm as JSON has each key and value of the old document.
func sameDocument(t *testing.T, vm banger.VM, document []byte) {
	t.Helper()
	text, err := json.Marshal(vm)
	if err != nil {
		t.Fatal(err)
	}
	var now, then map[string]any
	if err := json.Unmarshal(text, &now); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(document, &then); err != nil {
		t.Fatal(err)
	}
	for key, value := range then {
		if !reflect.DeepEqual(now[key], value) {
			t.Errorf("%s is stored as %v, not %v", key, now[key], value)
		}
	}
}
