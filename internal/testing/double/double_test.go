package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
)

// TestTheDoubleIsStrict: what Firecracker refuses, the double refuses with the same status and
// fault (parsed_request.rs, rpc_interface.rs).
func TestTheDoubleIsStrict(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	lacking := saved{Drives: []savedDrive{{drive{Path: dir + "/none"}, "d"}}}
	states := 0
	state := func(s saved) string { // a file of it
		states++
		s.Magic, s.Version = cmp.Or(s.Magic, magic), cmp.Or(s.Version, playedVersion())
		path := filepath.Join(dir, fmt.Sprint("state", states))
		if data, err := json.Marshal(s); err != nil || os.WriteFile(path, data, 0o600) != nil {
			t.Fatal(err)
		}
		return path
	}
	const before, after = "The requested operation is not supported before starting the microVM.",
		"The requested operation is not supported after starting the microVM."
	boot := `{"kernel_image_path":"` + file + `"}`
	drive := `{"drive_id":"d","is_root_device":false,"is_read_only":true,"path_on_host":"` + file + `"}`
	for name, c := range map[string]struct {
		state  string // of the instance; "" is not started
		before []string
		call   string // METHOD PATH BODY
		fault  string // a part of it; "" is success
	}{
		"what is right": {call: "PUT /boot-source " + boot},
		"a drive":       {call: "PUT /drives/d " + drive},
		"an unknown path": {
			call:  "PUT /nonesuch {}",
			fault: "Invalid request method and/or path: PUT nonesuch.",
		},
		"an unknown method": {
			call:  "PATCH /boot-source {}",
			fault: "Invalid request method and/or path: PATCH boot-source.",
		},
		"an empty PUT":      {call: "PUT /boot-source ", fault: "Empty PUT request."},
		"a GET with a body": {call: "GET / {}", fault: "GET request cannot have a body."},
		"an unknown field": {
			call:  `PUT /boot-source {"kernel_image_path":"` + file + `","kernel":"x"}`,
			fault: "unknown field",
		},
		"a wrong type": {
			call:  `PUT /machine-config {"vcpu_count":"1","mem_size_mib":128}`,
			fault: "An error occurred when deserializing the json body of a request",
		},
		"a field that is missing": {call: `PUT /machine-config {"vcpu_count":1}`, fault: "missing field `mem_size_mib`"},
		"no JSON":                 {call: "PUT /boot-source {", fault: "An error occurred when deserializing"},
		"two values":              {call: "PUT /boot-source " + boot + boot, fault: "trailing characters"},
		"a word that is none":     {call: `PUT /actions {"action_type":"Reboot"}`, fault: "unknown variant `Reboot`"},
		"no id":                   {call: "PUT /drives/ " + drive, fault: "The ID cannot be empty."},
		"an id with a dash":       {call: "PUT /drives/a-b " + drive, fault: "alphanumeric characters and underscores"},
		"two ids":                 {call: "PUT /drives/e " + drive, fault: "does not match"},
		"a file that is not there": {
			call:  `PUT /boot-source {"kernel_image_path":"` + dir + `/none"}`,
			fault: "Boot source error: The kernel file cannot be opened",
		},
		"a drive that is not there": {
			call:  `PUT /drives/d {"drive_id":"d","is_root_device":false,"path_on_host":"` + dir + `/none"}`,
			fault: "Drive config error",
		},
		"too many CPUs": {
			call:  `PUT /machine-config {"vcpu_count":33,"mem_size_mib":128}`,
			fault: "The vCPU number is invalid",
		},
		"a guest's reserved CID": {
			call:  `PUT /vsock {"guest_cid":2,"uds_path":"` + dir + `/v"}`,
			fault: "Vsock config error",
		},
		"a socket that is there": {
			call:  `PUT /vsock {"guest_cid":3,"uds_path":"` + file + `"}`,
			fault: "Error binding to the host-side Unix socket",
		},
		"metrics twice": {
			before: []string{`PUT /metrics {"metrics_path":"` + file + `"}`},
			call:   `PUT /metrics {"metrics_path":"` + file + `"}`,
			fault:  "Reinitialization of metrics not allowed",
		},
		"a start without a kernel": {
			call:  `PUT /actions {"action_type":"InstanceStart"}`,
			fault: "Cannot start microvm without kernel configuration.",
		},
		"a second start":           {state: running, call: `PUT /actions {"action_type":"InstanceStart"}`, fault: after},
		"a boot source, running":   {state: running, call: "PUT /boot-source " + boot, fault: after},
		"a drive, running":         {state: running, call: "PUT /drives/d " + drive, fault: after},
		"a pause before the start": {call: `PATCH /vm {"state":"Paused"}`, fault: before},
		"keys before the start":    {call: `PUT /actions {"action_type":"SendCtrlAltDel"}`, fault: before},
		"a snapshot before the start": {
			call:  `PUT /snapshot/create {"mem_file_path":"a","snapshot_path":"b"}`,
			fault: before,
		},
		"a snapshot while it runs": {
			state: running,
			call:  `PUT /snapshot/create {"mem_file_path":"a","snapshot_path":"b"}`,
			fault: "Create snapshot error: Cannot save the microVM state: Operation not allowed: save/restore unavailable while running",
		},
		"a diff without tracking": {
			state: paused,
			call:  `PUT /snapshot/create {"mem_file_path":"a","snapshot_path":"b","snapshot_type":"Diff"}`,
			fault: "dirty page tracking is not enabled",
		},
		"a load of nothing": {
			call:  `PUT /snapshot/load {"snapshot_path":"` + dir + `/none","mem_file_path":"x"}`,
			fault: "Load snapshot error: Failed to restore from snapshot: Failed to get snapshot state from file: Failed to open snapshot file",
		},
		"a load of something else": {
			call:  `PUT /snapshot/load {"snapshot_path":"` + file + `","mem_file_path":"x"}`,
			fault: "Failed to load snapshot state from file: CRC64 validation failed",
		},
		"a load of a foreign state": {
			call:  `PUT /snapshot/load {"snapshot_path":"` + state(saved{Magic: "another"}) + `","mem_file_path":"x"}`,
			fault: "Magic value does not match arch",
		},
		"a load of another version": {
			call:  `PUT /snapshot/load {"snapshot_path":"` + state(saved{Version: "1.0.0"}) + `","mem_file_path":"x"}`,
			fault: "Invalid data version: 1.0.0",
		},
		"a load without its memory": {
			call:  `PUT /snapshot/load {"snapshot_path":"` + state(saved{}) + `","mem_file_path":"` + dir + `/none"}`,
			fault: "Error creating guest memory from file: Failed to load guest memory",
		},
		"a load of less memory": {
			call:  `PUT /snapshot/load {"snapshot_path":"` + state(saved{Length: 8}) + `","mem_file_path":"` + file + `"}`,
			fault: "Total sum of memory regions exceeds largest possible file offset",
		},
		"a load of huge pages": {
			call:  `PUT /snapshot/load {"snapshot_path":"` + state(saved{HugePages: true}) + `","mem_file_path":"` + file + `"}`,
			fault: "Cannot restore hugetlbfs backed snapshot by mapping the memory file. Please use uffd.",
		},
		"a load without a drive": {
			call:  `PUT /snapshot/load {"snapshot_path":"` + state(lacking) + `","mem_file_path":"` + file + `"}`,
			fault: "Error manipulating the backing file",
		},
		"a load on a socket": {
			call:  `PUT /snapshot/load {"snapshot_path":"` + state(saved{Vsock: file}) + `","mem_file_path":"` + file + `"}`,
			fault: "Error binding to the host-side Unix socket",
		},
		"an override of no NIC": {
			call: `PUT /snapshot/load {"snapshot_path":"` + state(saved{}) +
				`","mem_file_path":"x","network_overrides":[{"iface_id":"a","host_dev_name":"b"}]}`,
			fault: "Unknown Network Device.",
		},
		"an override of no vsock": {
			call: `PUT /snapshot/load {"snapshot_path":"` + state(saved{}) +
				`","mem_file_path":"x","vsock_override":{"uds_path":"b"}}`,
			fault: "Unknown Vsock Device.",
		},
		"half an override": {
			call:  `PUT /snapshot/load {"snapshot_path":"a","mem_file_path":"x","network_overrides":[{"iface_id":"a"}]}`,
			fault: "missing field",
		},
		"a path of no vsock": {
			call:  `PUT /snapshot/load {"snapshot_path":"a","mem_file_path":"x","vsock_override":{}}`,
			fault: "missing field `uds_path`",
		},
		"a load without memory": {
			call:  `PUT /snapshot/load {"snapshot_path":"a"}`,
			fault: "missing field: either `mem_backend` or `mem_file_path` is required",
		},
		"a load with two memories": {
			call:  `PUT /snapshot/load {"snapshot_path":"a","mem_file_path":"x","mem_backend":{"backend_type":"File","backend_path":"x"}}`,
			fault: "too many fields: either `mem_backend` or `mem_file_path` exclusively is required",
		},
		"a memory of no type": {
			call:  `PUT /snapshot/load {"snapshot_path":"a","mem_backend":{"backend_path":"x"}}`,
			fault: "missing field `backend_type`",
		},
		"a memory of no place": {
			call:  `PUT /snapshot/load {"snapshot_path":"a","mem_backend":{"backend_type":"File"}}`,
			fault: "missing field `backend_path`",
		},
		"a memory of another kind": {
			call:  `PUT /snapshot/load {"snapshot_path":"a","mem_backend":{"backend_type":"Tape","backend_path":"x"}}`,
			fault: "unknown variant `Tape`",
		},
		"a load with a drive's path": {
			call:  `PUT /snapshot/load {"snapshot_path":"a","mem_file_path":"x","drive_overrides":[]}`,
			fault: "unknown field",
		},
		"a load of nowhere": {
			call:  `PUT /snapshot/load {"mem_file_path":"x"}`,
			fault: "missing field `snapshot_path`",
		},
		"a load after the serial port": {
			before: []string{`PUT /serial {}`},
			call:   `PUT /snapshot/load {"snapshot_path":"a","mem_file_path":"x"}`,
			fault:  "no such file",
		},
		"a load after entropy": {
			before: []string{`PUT /entropy {}`},
			call:   `PUT /snapshot/load {"snapshot_path":"a","mem_file_path":"x"}`,
			fault:  "not allowed after configuring boot-specific resources",
		},
		"a snapshot of a third kind": {
			state: paused,
			call:  `PUT /snapshot/create {"mem_file_path":"a","snapshot_path":"b","snapshot_type":"Half"}`,
			fault: "unknown variant `Half`",
		},
		"a snapshot without a place": {
			state: paused,
			call:  `PUT /snapshot/create {"snapshot_path":"b"}`,
			fault: "missing field `mem_file_path`",
		},
		"a snapshot to nowhere": {
			state: paused,
			call:  `PUT /snapshot/create {"mem_file_path":"a","snapshot_path":"` + dir + `/none/b"}`,
			fault: "Create snapshot error: Cannot perform open on the snapshot backing file",
		},
		"memory to nowhere": {
			state: paused,
			call:  `PUT /snapshot/create {"mem_file_path":"` + dir + `/none/a","snapshot_path":"` + dir + `/b"}`,
			fault: "Create snapshot error: Cannot perform open on the memory backing file",
		},
		"a load after a boot source": {
			before: []string{"PUT /boot-source " + boot},
			call:   `PUT /snapshot/load {"snapshot_path":"a","mem_file_path":"x"}`,
			fault:  "not allowed after configuring boot-specific resources",
		},
		"a load after the log": {
			before: []string{`PUT /logger {"log_path":"` + file + `"}`},
			call:   `PUT /snapshot/load {"snapshot_path":"a","mem_file_path":"x"}`,
			fault:  "no such file",
		},
		"a load, running": {
			state: running,
			call:  `PUT /snapshot/load {"snapshot_path":"a","mem_file_path":"x"}`,
			fault: after,
		},
		"a body too large": {
			call:  "PUT /boot-source " + strings.Repeat(" ", maxPayload+1),
			fault: "larger than the limit of 51200",
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := &microVM{id: "vm", state: notStarted, ended: make(chan int, 1)}
			if c.state != "" {
				m.state = c.state
			}
			a := &api{vm: m}
			for _, call := range c.before {
				if status, fault := ask(t, a, call); status >= 300 {
					t.Fatalf("%s: %d %s", call, status, fault)
				}
			}
			status, fault := ask(t, a, c.call)
			if c.fault == "" && status != http.StatusNoContent || c.fault != "" &&
				(status != http.StatusBadRequest || !strings.Contains(fault, c.fault)) {
				t.Errorf("the answer is %d %q, not one with %q", status, fault, c.fault)
			}
		})
	}
}

// TestAFailedLoadIsTheEnd: a failed load is answered, and then the process ends. A load that is not
// allowed does not end it.
func TestAFailedLoadIsTheEnd(t *testing.T) {
	m := &microVM{state: notStarted, ended: make(chan int, 1)}
	if _, fault := ask(t, &api{vm: m}, `PUT /snapshot/load {"snapshot_path":"/none"}`); fault == "" || len(m.ended) != 0 {
		t.Errorf("after a bad body it ends (%s)", fault)
	}
	if _, fault := ask(t, &api{vm: m}, `PUT /snapshot/load {"snapshot_path":"/none","mem_file_path":"x"}`); fault == "" ||
		len(m.ended) != 1 || <-m.ended != exitGeneric {
		t.Errorf("after a load that has failed it does not end (%s)", fault)
	}
}

// TestAnOldVersionKnowsLess: fields and paths of a later version are unknown. The real 1.12.1 was
// asked the same here, and answered alike.
func TestAnOldVersionKnowsLess(t *testing.T) {
	const load = `PUT /snapshot/load {"snapshot_path":"a","mem_file_path":"x",`
	for _, c := range []struct{ version, call, fault string }{
		{"1.15.0", load + `"vsock_override":{"uds_path":"v"}}`, "unknown field `vsock_override`"},
		{"1.15.0", load + `"clock_realtime":true}`, "unknown field `clock_realtime`"},
		{"1.15.0", `PUT /serial {"rate_limiter":{"size":1,"refill_time":1}}`, "unknown field `rate_limiter`"},
		{"1.15.0", `PUT /network-interfaces/a {"iface_id":"a","host_dev_name":"b","mtu":1500}`, "unknown field `mtu`"},
		{"1.13.0", load + `"track_dirty_pages":true}`, "Failed to open snapshot file"},
		{"1.13.0", `PUT /serial {}`, "Invalid request method and/or path: PUT serial."},
		{"1.12.1", `PUT /serial {}`, "Invalid request method and/or path: PUT serial."},
		{"1.12.1", load + `"track_dirty_pages":true}`, "unknown field `track_dirty_pages`"},
		{"1.12.1", load + `"vsock_override":{"uds_path":"q"}}`, "unknown field `vsock_override`"},
		{"1.12.1", load + `"enable_diff_snapshots":true}`, "Failed to open snapshot file"},
		{"1.12.1", `PUT /balloon {"amount_mib":0,"deflate_on_oom":true,"free_page_hinting":true}`,
			"unknown field `free_page_hinting`"},
	} {
		t.Setenv("DOUBLE_VERSION", c.version)
		m := &microVM{state: notStarted, ended: make(chan int, 1)}
		if _, fault := ask(t, &api{vm: m}, c.call); !strings.Contains(fault, c.fault) {
			t.Errorf("%s: %s is answered %q, not %q", c.version, c.call, fault, c.fault)
		}
	}
}

// TestWhatAResumeDoesToTheVsock: it depends on the version, and on whether a snapshot has sent an
// event before.
func TestWhatAResumeDoesToTheVsock(t *testing.T) {
	for _, c := range []struct {
		version     string
		reset       bool
		closed, cut bool
	}{
		{"1.12.1", true, false, true}, {"1.12.1", false, false, false},
		{"1.15.1", true, false, true}, {"1.15.1", false, false, false},
		{"1.16.0", true, false, false}, {"1.16.0", false, true, false},
		{"1.16.1", true, false, false}, {"1.16.1", false, true, false},
		{"1.16.2", false, false, false}, {"1.17.0", true, false, false}, {"1.17.0", false, false, false},
	} {
		t.Setenv("DOUBLE_VERSION", c.version)
		s := &session{}
		s.resumed(c.reset)
		closed, cut := s.gate()
		if _, again := s.gate(); closed != c.closed || cut != c.cut || again {
			t.Errorf("%s: after a resume (event %t) it is closed %t, cuts %t, and again %t", c.version, c.reset, closed, cut,
				again)
		}
		if c.closed {
			if s.resumed(true); s.closed {
				t.Errorf("%s: the guest's receipt of an event does not open it", c.version)
			}
		}
	}
}

// TestWhatIsPrinted: requests are printed until the API names a log, unless --level silences them.
func TestWhatIsPrinted(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(log, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for level, want := range map[string]int{"Info": 2, "Warning": 0} {
		printed := captured(t, func() {
			m := &microVM{id: "vm", state: notStarted, level: level}
			ask(t, &api{vm: m}, "GET /")
			ask(t, &api{vm: m}, `PUT /logger {"log_path":"`+log+`","level":"Warning"}`)
			ask(t, &api{vm: m}, "GET /")
		})
		if strings.Count(printed, "The API server received a ") != want {
			t.Errorf("at level %s it prints\n%s", level, printed)
		}
	}
}

// captured returns the output of f.
func captured(t *testing.T, f func()) string {
	t.Helper()
	file, err := os.CreateTemp(t.TempDir(), "stdout")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	before := os.Stdout
	os.Stdout = file
	defer func() { os.Stdout = before }()
	f()
	data, err := os.ReadFile(file.Name())
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func ask(t *testing.T, a *api, call string) (int, string) {
	t.Helper()
	parts := strings.SplitN(call, " ", 3)
	body := ""
	if len(parts) == 3 {
		body = parts[2]
	}
	w := httptest.NewRecorder()
	a.ServeHTTP(w, httptest.NewRequest(parts[0], parts[1], bytes.NewReader([]byte(body))))
	var e struct {
		Fault string `json:"fault_message"`
	}
	if w.Body.Len() > 0 {
		if err := json.Unmarshal(w.Body.Bytes(), &e); err != nil {
			t.Fatal(err)
		}
	}
	return w.Code, e.Fault
}

// connections is a listener whose connections come from a channel.
type connections struct {
	net.Listener
	next chan net.Conn
}

func (c connections) Accept() (net.Conn, error) {
	conn, ok := <-c.next
	if !ok {
		return nil, net.ErrClosed
	}
	return conn, nil
}

func TestTheGuestHearsNothingBeforeTheFirstConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		vsock := connections{next: make(chan net.Conn)}
		m := &microVM{vsock: vsock}
		sessions := 0
		go m.serveVsock(&session{vm: m}, func() { sessions++ })
		for i, want := range []int{0, 1, 1} { // sessions after so many connections
			if i > 0 {
				conn, other, err := socketPair()
				if err != nil {
					t.Fatal(err)
				}
				other.Close() // asks for no port
				vsock.next <- conn
			}
			synctest.Wait()
			if sessions != want {
				t.Errorf("after %d connections, there have been %d sessions", i, sessions)
			}
		}
		close(vsock.next)
	})
}
