package wake

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"banger"
	"banger/internal/network"
	"banger/internal/networks"
	"banger/internal/shim"
)

// ownAddress is the own address of the VM of a test.
const ownAddress = "127.98.8.1"

// vms are the VMs of a test's networks.
type vms []banger.VM

func (l vms) List(keep func(banger.VM) bool) (list []banger.VM) {
	for _, vm := range l {
		if keep(vm) {
			list = append(list, vm)
		}
	}
	return list
}

func (vms) UID(string) uint32 { return 0 }

// house has doors, whose wakes it counts.
type house struct {
	*Doors
	woken chan string
}

func newHouse(t *testing.T, list ...banger.VM) *house {
	t.Helper()
	h := &house{woken: make(chan string, 1000)}
	nets := networks.New(networks.Options{VMs: vms(list), Knock: func(id string) { h.Knock(id) }})
	h.Doors = New(Options{Networks: nets, Owner: uint32(os.Geteuid()), Log: slog.New(slog.DiscardHandler),
		Wake: func(_ context.Context, id string) (banger.VM, error) { h.woken <- id; return banger.VM{}, nil }})
	t.Cleanup(h.Shut)
	return h
}

func (h *house) await(t *testing.T) {
	t.Helper()
	select {
	case <-h.woken:
	case <-time.After(patience):
		t.Fatal("the VM was not woken")
	}
}

// suspended returns a VM with a forward from a free port and, if own is true, a port of its own.
func suspended(t *testing.T, own bool) banger.VM {
	t.Helper()
	f, file := listen(t, "tcp")
	file.Close()
	vm := banger.VM{ID: "0123456789ab", Name: "box", State: banger.StateSuspended, Address: ownAddress,
		Forwards: []banger.Forward{f}}
	vm.Spec.Network = banger.NetworkUser
	vm.Spec.Forwards = []banger.Forward{{Protocol: "tcp", HostIP: "127.0.0.1", GuestPort: 80}}
	if own {
		vm.Listeners = []banger.Listener{{Protocol: "tcp", Address: "0.0.0.0", Port: 80, Process: "httpd",
			Reachable: []string{ownAddress + ":8080"}}}
	}
	return vm
}

var own = banger.Forward{Protocol: "tcp", HostIP: ownAddress, HostPort: 8080, GuestPort: 80}

// shimOf answers the calls of a VM that goes on. It says the forward to each connection that it gets.
func shimOf(t *testing.T) (c shim.Client, calls func() []string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "wk")
	check(t, err)
	ln, err := net.Listen("unix", filepath.Join(dir, shim.SocketFile))
	check(t, err)
	var mu sync.Mutex
	var list []string
	over := make(chan struct{})
	go func() {
		defer close(over)
		for conn, err := ln.Accept(); err == nil; conn, err = ln.Accept() {
			b, oob := make([]byte, 1), make([]byte, syscall.CmsgSpace(4))
			_, oobn, _, _, err := conn.(*net.UnixConn).ReadMsgUnix(b, oob)
			if err == nil {
				line, _ := shim.ReadLine(conn)
				line = string(b) + line
				mu.Lock()
				list = append(list, line)
				mu.Unlock()
				if messages, _ := syscall.ParseSocketControlMessage(oob[:oobn]); len(messages) == 1 {
					fds, _ := syscall.ParseUnixRights(&messages[0])
					io.WriteString(os.NewFile(uintptr(fds[0]), "carried"), line)
					syscall.Close(fds[0])
				}
				json.NewEncoder(conn).Encode(shim.Status{})
			}
			conn.Close()
		}
	}()
	t.Cleanup(func() { ln.Close(); <-over; os.RemoveAll(dir) })
	return shim.Client{Dir: dir, Run: dir}, func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(list)
	}
}

// TestAVMGoesOnWithItsSocketsAndConnections opens a door with new sockets, and passes all on.
func TestAVMGoesOnWithItsSocketsAndConnections(t *testing.T) {
	vm := suspended(t, true)
	h := newHouse(t, vm)
	if problem := h.Open(vm); problem != "" {
		t.Fatal(problem)
	}
	forwarded := dial(t, vm.Forwards[0])
	h.await(t)
	toOwn := dial(t, own)
	h.await(t)
	s, err := h.Sockets(vm)
	check(t, err)
	defer s.Close()
	if !slices.Equal(s.Forwards, vm.Forwards) || !slices.Equal(s.Own, []banger.Forward{own}) || len(s.Files) != 2 ||
		!reflect.DeepEqual(s.Listeners, vm.Listeners) {
		t.Errorf("it goes on with %+v", s)
	}
	for i, f := range []banger.Forward{vm.Forwards[0], own} {
		if at, err := network.Bound(s.Files[i]); err != nil || at != f.Host() {
			t.Errorf("the socket of %s is that of %s, %v", f, at, err)
		}
	}
	late := dial(t, own) // it waits in the socket
	client, calls := shimOf(t)
	check(t, h.Pass(t.Context(), vm.ID, client))
	for _, conn := range []net.Conn{forwarded, toOwn} {
		if text, err := io.ReadAll(conn); err != nil || !strings.HasPrefix(string(text), shim.CallCarry+" {") {
			t.Errorf("a connection gets %q, %v", text, err)
		}
	}
	if list := calls(); len(list) != 3 || list[0] != shim.CallAccept {
		t.Errorf("the shim gets %q", list)
	}
	ln, err := net.FileListener(s.Files[1])
	check(t, err)
	defer ln.Close()
	conn, err := ln.Accept()
	check(t, err)
	if conn.RemoteAddr().String() != late.LocalAddr().String() {
		t.Error("another connection waits in the socket")
	}
	conn.Close()
}

// TestTheShimsSocketsAreTaken checks that a connection which has come before the door opens wakes the VM.
func TestTheShimsSocketsAreTaken(t *testing.T) {
	vm := suspended(t, false)
	h := newHouse(t, vm)
	file, err := network.Listen(vm.Forwards[0])
	check(t, err)
	stray, strayFile := listen(t, "tcp")
	h.Leave(vm.ID, []*os.File{strayFile, file})
	conn := dial(t, vm.Forwards[0])
	if problem := h.Open(vm); problem != "" {
		t.Fatal(problem)
	}
	h.await(t)
	if _, err := net.Dial("tcp", stray.Host().String()); err == nil {
		t.Error("a socket that is not the VM's stays open")
	}
	h.Close(vm.ID)
	if _, err := conn.Read(make([]byte, 1)); err == nil || err == io.EOF {
		t.Errorf("the connection ends with %v", err)
	}
	_, file = listen(t, "tcp")
	h.Leave(vm.ID, []*os.File{file})
	h.Shut()
	if err := file.Close(); err == nil {
		t.Error("a socket stays open")
	}
}

// TestAPortThatIsTaken is named when the door opens. The VM goes on with another one if the user did not name it.
func TestAPortThatIsTaken(t *testing.T) {
	vm := suspended(t, true)
	h := newHouse(t, vm)
	other, err := network.Listen(vm.Forwards[0])
	check(t, err)
	defer other.Close()
	if problem := h.Open(vm); !strings.Contains(problem, vm.Forwards[0].Host().String()+"/tcp of the host is taken by") {
		t.Errorf("the problem is %q", problem)
	}
	s, err := h.Sockets(vm)
	check(t, err)
	s.Close()
	if len(s.Forwards) != 1 || s.Forwards[0] == vm.Forwards[0] || len(s.Own) != 1 {
		t.Errorf("it goes on with %+v", s)
	}
	vm.Spec.Forwards = vm.Forwards
	if s, err := h.Sockets(vm); banger.CodeOf(err) != banger.CodeConflict {
		t.Errorf("it goes on with %+v, %v", s, err)
	}
	h.Open(vm) // it did not go on
	dial(t, own)
	h.await(t)
}

// TestNoUseWakes a VM whose spec says so, and it keeps no listener, but its ports.
func TestNoUseWakes(t *testing.T) {
	vm := suspended(t, true)
	vm.Spec.NoWake = true
	h := newHouse(t, vm)
	if problem := h.Open(vm); problem != "" {
		t.Error(problem)
	}
	if _, err := net.Dial("tcp", vm.Forwards[0].Host().String()); err == nil {
		t.Error("the port is open")
	}
	h.Knock(vm.ID)
	_, file := listen(t, "tcp")
	check(t, h.Side(vm.ID).AddForward(t.Context(), own, file))
	check(t, h.Side(vm.ID).RemoveForward(t.Context(), own))
	s, err := h.Sockets(vm)
	check(t, err)
	s.Close()
	if !slices.Equal(s.Forwards, vm.Forwards) || len(s.Own) != 0 || len(h.woken) != 0 {
		t.Errorf("it goes on with %+v", s)
	}
}

// TestForwardsOfASuspendedVM come and go.
func TestForwardsOfASuspendedVM(t *testing.T) {
	vm := suspended(t, false)
	h := newHouse(t, vm)
	h.Open(vm)
	f, file := listen(t, "tcp")
	check(t, h.Side(vm.ID).AddForward(t.Context(), f, file))
	file.Close()
	dial(t, f)
	h.await(t)
	check(t, h.Side(vm.ID).RemoveForward(t.Context(), f))
	if _, err := net.Dial("tcp", f.Host().String()); err == nil {
		t.Error("the port is open")
	}
}

// TestAQuestionForItsNameWakes only a suspended VM on a bridge.
func TestAQuestionForItsNameWakes(t *testing.T) {
	onBridge := banger.VM{ID: "a", Name: "a", State: banger.StateSuspended, Address: "172.30.0.2"}
	onBridge.Spec.Network = banger.NetworkBridge
	quiet, runs, user := onBridge, onBridge, onBridge
	quiet.ID, quiet.Name, quiet.Spec.NoWake = "b", "b", true
	runs.ID, runs.Name, runs.State = "c", "c", banger.StateRunning
	user.ID, user.Name, user.Spec.Network = "d", "d", banger.NetworkUser
	h := newHouse(t, onBridge, quiet, runs, user)
	for _, vm := range []banger.VM{onBridge, quiet, runs, user} {
		h.Open(vm)
	}
	for _, name := range []string{"d", "c", "b", "a"} {
		if addr, ok := h.Networks.Address(name, ""); !ok || addr.String() != "172.30.0.2" {
			t.Errorf("%s has the address %s, %t", name, addr, ok)
		}
	}
	if id := <-h.woken; id != "a" || len(h.woken) != 0 {
		t.Errorf("%s was woken, and %d more", id, len(h.woken))
	}
}

// TestWhatAShimSaysIsBounded gives lists that no shim of ours makes.
func TestWhatAShimSaysIsBounded(t *testing.T) {
	vm := suspended(t, true)
	long := strings.Repeat("x", 1000)
	many := slices.Repeat([]banger.Listener{{Protocol: long, Address: long, Process: long, URL: long, Problem: long,
		Reachable: slices.Repeat([]string{long}, 1000)}}, 1000)
	list := Bound(many, vm)
	if text, err := json.Marshal(list); err != nil || len(list) != shim.MaxWaiting || len(text) > shim.MaxWaiting*2000 {
		t.Errorf("there are %d, of %d bytes, %v", len(list), len(text), err)
	}
	for name, l := range map[string]banger.Listener{
		"another address": {Protocol: "tcp", Port: 80, Reachable: []string{"127.0.0.1:22"}},
		"no address":      {Protocol: "tcp", Port: 80, Reachable: []string{"x"}},
		"no port":         {Protocol: "tcp", Port: 80, Reachable: []string{ownAddress + ":0"}},
		"no guest's port": {Protocol: "tcp", Reachable: []string{ownAddress + ":80"}},
		"no protocol":     {Protocol: "sctp", Port: 80, Reachable: []string{ownAddress + ":80"}},
		"nowhere":         {Protocol: "tcp", Port: 80},
	} {
		vm.Listeners = []banger.Listener{l}
		if list := Own(vm); len(list) != 0 {
			t.Errorf("%s: %v", name, list)
		}
	}
	twice := banger.Listener{Protocol: "tcp", Port: 80, Reachable: []string{ownAddress + ":8080", ownAddress + ":8080"}}
	vm.Listeners = []banger.Listener{twice, twice}
	if list := Own(vm); !slices.Equal(list, []banger.Forward{own}) {
		t.Errorf("it is %v", list)
	}
	vm.Spec.NoWake = true
	if list := Bound(vm.Listeners, vm); len(list) != 2 || list[0].Reachable != nil {
		t.Errorf("it is %+v", list)
	}
}

// TestWhereASuspendedVMIsReached lists its own ports and its forwards.
func TestWhereASuspendedVMIsReached(t *testing.T) {
	vm := suspended(t, true)
	want := []string{ownAddress + ":8080", vm.Forwards[0].Host().String()}
	if list := Listeners(vm); len(list) != 1 || !slices.Equal(list[0].Reachable, want) {
		t.Errorf("it is %+v", list)
	}
	if len(vm.Listeners[0].Reachable) != 1 {
		t.Error("the VM was changed")
	}
}
