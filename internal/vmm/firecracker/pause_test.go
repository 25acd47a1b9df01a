package firecracker_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"banger/internal/guest"
	"banger/internal/testing/vmmtest"
	"banger/internal/vmm"
	"banger/internal/vmm/firecracker"
)

// TestWhatAPauseStops: the pause stops the whole process if the API's pause would break the vsock,
// and otherwise only the guest.
func TestWhatAPauseStops(t *testing.T) {
	for version, stops := range map[string]bool{"1.15.1": false, "1.16.0": true, "1.16.1": true, "1.17.0": false} {
		t.Run(version, func(t *testing.T) {
			vm := vmmtest.Start(t, firecracker.Driver{Binary: faulty(t, "DOUBLE_VERSION="+version)}, config(t))
			vmmtest.Configure(t, vm, guest.Config{Hostname: "x"})
			if err := vm.Pause(t.Context()); err != nil {
				t.Fatal(err)
			}
			if s := threads(t, vm); (strings.Trim(s, "T") == "") != stops {
				t.Errorf("the states of its threads are %q", s)
			}
			if err := vm.Resume(t.Context()); err != nil {
				t.Fatal(err)
			}
			if s := threads(t, vm); strings.Contains(s, "T") {
				t.Errorf("after Resume the states of its threads are %q", s)
			}
			if _, err := vm.Agent.Ping(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestAStoppedVM: requests to a VM whose process is stopped are answered, or end.
func TestAStoppedVM(t *testing.T) {
	c := config(t)
	vm := vmmtest.Start(t, firecracker.Driver{Binary: double(t)}, c)
	vmmtest.Configure(t, vm, guest.Config{Hostname: "x"})
	before, err := vm.Stats(t.Context())
	if err != nil || before.DiskRead == 0 {
		t.Fatalf("its stats are %+v, %v", before, err)
	}
	if err := vm.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if s, err := vm.Stats(short); err != nil || s != before {
		t.Errorf("its stats were %+v, and are %+v, %v", before, s, err)
	}
	_, err = vm.Process.(vmm.Dialer).Dial(t.Context(), guest.AgentPort)
	wantFailure(t, err, "the VM is paused")
	dir := vmmtest.SnapshotDir(t, c)
	if err := vm.Process.(vmm.Snapshotter).Snapshot(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	if s := threads(t, vm); strings.Contains(s, "T") {
		t.Errorf("after a snapshot the states of its threads are %q", s)
	}
	for range 2 { // on top of a pause by the API
		if err := vm.Pause(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := vm.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := vm.Agent.Ping(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestAPauseWithoutASnapshot: a VM that the API has paused, as after a failed snapshot, is resumed
// with its vsock.
func TestAPauseWithoutASnapshot(t *testing.T) {
	c := config(t)
	vm := vmmtest.Start(t, firecracker.Driver{Binary: double(t)}, c)
	vmmtest.Configure(t, vm, guest.Config{Hostname: "x"})
	for range 2 {
		if status := ask(t, c, http.MethodPatch, "/vm", `{"state":"Paused"}`); status != http.StatusNoContent {
			t.Fatalf("the API answers %d", status)
		}
		if err := vm.Resume(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := vm.Agent.Ping(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if list := files(t, c.Dir); strings.Contains(list, vmm.SnapshotState) || strings.Contains(list, vmm.SnapshotRAM) {
		t.Errorf("it leaves\n%s", list)
	}
	// Without the event, the API's pause and resume break the vsock. The double has this fault.
	for _, state := range []string{"Paused", "Resumed"} {
		if status := ask(t, c, http.MethodPatch, "/vm", `{"state":"`+state+`"}`); status != http.StatusNoContent {
			t.Fatalf("the API answers %d", status)
		}
	}
	_, err := vm.Process.(vmm.Dialer).Dial(t.Context(), guest.AgentPort)
	wantFailure(t, err, "the VM's vsock does not answer")
}

// TestAPauseThatTheAPIDoesNotTake: if the API refuses the pause for a snapshot, the VM stays
// stopped, and there is no file.
func TestAPauseThatTheAPIDoesNotTake(t *testing.T) {
	c := config(t)
	vm := vmmtest.Start(t, firecracker.Driver{Binary: faulty(t, "DOUBLE_HANGS_AT=/vm")}, c)
	vmmtest.Configure(t, vm, guest.Config{Hostname: "x"})
	if err := vm.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	dir := vmmtest.SnapshotDir(t, c)
	short, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := vm.Process.(vmm.Snapshotter).Snapshot(short, dir); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the error is %v", err)
	}
	if s := threads(t, vm); strings.Trim(s, "T") != "" {
		t.Errorf("the states of its threads are %q", s)
	}
	if list, err := os.ReadDir(dir); err != nil || len(list) > 0 {
		t.Errorf("it leaves %v, %v", list, err)
	}
	vm.Kill()
	if exit := vm.AwaitEnd(t); exit.Signal != 9 {
		t.Errorf("it ends with %+v", exit)
	}
}

// threads returns the states of a VMM's threads, one letter each (proc(5)).
func threads(t *testing.T, vm *vmmtest.VM) (letters string) {
	t.Helper()
	paths, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", vm.Handle().PID))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no threads: %v", err)
	}
	for _, path := range paths {
		if data, err := os.ReadFile(path); err == nil { // else the thread has ended
			_, rest, _ := strings.Cut(string(data), ") ")
			letters += rest[:1]
		}
	}
	return letters
}

// ask sends a request to a VMM's API without the driver.
func ask(t *testing.T, c vmm.Config, method, path, body string) (status int) {
	t.Helper()
	var d net.Dialer
	client := http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return d.DialContext(ctx, "unix", filepath.Join(c.Dir, "api.sock"))
		}}}
	req, err := http.NewRequestWithContext(t.Context(), method, "http://localhost"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	io.Copy(io.Discard, resp.Body)
	return resp.StatusCode
}
