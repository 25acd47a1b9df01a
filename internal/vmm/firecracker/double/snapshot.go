package main

import (
	"encoding/json"
	"errors"
	"net"
	"os"
)

// saved is the double's state file: how the VM was configured. The memory file is QEMU's
// migration stream, all devices included.
type saved struct {
	Magic, Version       string
	CPUs, Memory         int
	Kernel, Initrd, Args string
	Drives               []savedDrive
	NICs                 []savedNIC
	Vsock                string
	Entropy              bool
	Balloon, Reporting   bool
}

type savedDrive struct {
	drive
	Serial string
}

type savedNIC struct {
	Name, MAC string
	MTU       int
}

const magic = "a snapshot of the double"

func createSnapshot(m *microVM, _ string, body []byte) (any, error) {
	var b struct {
		Memory string `json:"mem_file_path"`
		State  string `json:"snapshot_path"`
		Type   string `json:"snapshot_type"`
	}
	if err := decode(body, &b, "mem_file_path", "snapshot_path"); err != nil {
		return nil, err
	}
	if err := oneOf(b.Type, "Full", "Diff"); err != nil {
		return nil, err
	}
	switch {
	case m.state == notStarted:
		return nil, errPreBoot
	case m.state != paused:
		return nil, faultf("Create snapshot error: Cannot save the microVM state: Operation not allowed. The microVM must be paused.")
	case b.Type == "Diff" && !m.trackDirty:
		return nil, faultf("Create snapshot error: Cannot get dirty bitmap: dirty page tracking is not enabled")
	}
	s := saved{Magic: magic, Version: playedVersion(), CPUs: m.cpus, Memory: m.memory, Kernel: m.kernel, Initrd: m.initrd, Args: m.args,
		Vsock: m.vsockPath, Entropy: m.entropy, Balloon: m.balloon, Reporting: m.reporting}
	for _, d := range m.drives {
		s.Drives = append(s.Drives, savedDrive{d, d.serial})
	}
	for _, n := range m.nics {
		s.NICs = append(s.NICs, savedNIC{n.id, n.mac, n.mtu})
	}
	data, err := json.Marshal(s)
	if err == nil {
		err = os.WriteFile(b.State, data, 0o600)
	}
	if err != nil {
		return nil, faultf("Create snapshot error: Cannot perform an IO operation on the snapshot backing file: %w", err)
	}
	f, err := os.OpenFile(b.Memory, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, faultf("Create snapshot error: Cannot open memory file: %w", err)
	}
	defer f.Close()
	if err := m.migrate("migrate", f); err != nil {
		return nil, faultf("Create snapshot error: Cannot write memory file: %w", err)
	}
	m.session.drop() // all connections are reset (docs/snapshotting/snapshot-support.md)
	return nil, nil
}

func loadSnapshot(m *microVM, _ string, body []byte) (any, error) {
	var b struct {
		State      string `json:"snapshot_path"`
		MemoryPath string `json:"mem_file_path"`
		Memory     *struct {
			Type string `json:"backend_type"`
			Path string `json:"backend_path"`
		} `json:"mem_backend"`
		Diff     bool `json:"enable_diff_snapshots"`
		Track    bool `json:"track_dirty_pages"`
		Resume   bool `json:"resume_vm"`
		Networks []struct {
			ID     string `json:"iface_id"`
			Device string `json:"host_dev_name"`
		} `json:"network_overrides"`
		Vsock *struct {
			Path string `json:"uds_path"`
		} `json:"vsock_override"`
		Clock bool `json:"clock_realtime"`
	}
	if err := decode(body, &b, "snapshot_path"); err != nil {
		return nil, err
	}
	if (b.Memory == nil) == (b.MemoryPath == "") {
		return nil, faultf("An error occurred when deserializing the json body of a request: exactly one of `mem_backend` and `mem_file_path` is to be given.")
	}
	if b.Memory != nil {
		if err := oneOf(b.Memory.Type, "File", "Uffd"); err != nil {
			return nil, err
		}
		b.MemoryPath = b.Memory.Path
	}
	if m.state != notStarted {
		return nil, errPostBoot
	}
	if m.bootPath {
		return nil, faultf("Load snapshot error: Loading a microVM snapshot not allowed after configuring boot-specific resources.")
	}
	taps := map[string]string{}
	for _, n := range b.Networks {
		taps[n.ID] = n.Device
	}
	socket := ""
	if b.Vsock != nil {
		socket = b.Vsock.Path
	}
	m.trackDirty = b.Track
	if err := m.configureFrom(b.State, taps, socket); err != nil {
		return nil, faultf("Load snapshot error: Failed to restore from snapshot: %w", err)
	}
	if err := m.restore(b.MemoryPath, b.Resume); err != nil {
		return nil, faultf("Load snapshot error: Failed to restore from snapshot: %w", err)
	}
	return nil, nil
}

// configureFrom reads a state file. Drives are opened where they were.
func (m *microVM) configureFrom(path string, taps map[string]string, socket string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var s saved
	if err := json.Unmarshal(data, &s); err != nil || s.Magic != magic || s.Version != playedVersion() {
		return faultf("Failed to get snapshot state from file: it is none of version %s (%w)", playedVersion(), err)
	}
	m.cpus, m.memory, m.kernel, m.initrd, m.args = s.CPUs, s.Memory, s.Kernel, s.Initrd, s.Args
	m.entropy, m.balloon, m.reporting, m.vsockPath = s.Entropy, s.Balloon, s.Reporting, s.Vsock
	for _, d := range s.Drives {
		if _, err := os.Stat(d.Path); err != nil {
			return faultf("Error manipulating the backing file: %w", err)
		}
		d.drive.serial = d.Serial // as the guest knows it
		m.drives = append(m.drives, d.drive)
	}
	for _, n := range s.NICs {
		tap, err := openTap(taps[n.Name])
		if err != nil {
			return faultf("Open tap device failed: %w", err)
		}
		m.nics = append(m.nics, nic{id: n.Name, tap: tap, mac: n.MAC, mtu: n.MTU})
	}
	if socket != "" {
		m.vsockPath = socket
	}
	if m.vsockPath != "" {
		m.vsock, err = net.Listen("unix", m.vsockPath)
	}
	return err
}

// restore starts QEMU and has it read the memory file.
func (m *microVM) restore(memory string, resume bool) error {
	f, err := os.Open(memory)
	if err != nil {
		return err
	}
	defer f.Close()
	m.incoming = true
	if err := m.start(); err != nil {
		return err
	}
	m.state = paused
	if err := m.migrate("migrate-incoming", f); err != nil {
		return err
	}
	if !resume {
		return nil
	}
	m.state = running
	return m.qmp("cont", nil)
}

// migrate writes QEMU's stream to a file or reads it from there.
func (m *microVM) migrate(command string, f *os.File) error {
	m.migration = ""
	if err := errors.Join(
		m.qmp("migrate-set-capabilities", map[string]any{"capabilities": []any{map[string]any{"capability": "events", "state": true}}}),
		m.qmp("migrate-set-parameters", map[string]any{"max-bandwidth": int64(64 << 30)}),
		m.qmpWith("getfd", map[string]any{"fdname": "file"}, f),
		m.qmp(command, map[string]any{"uri": "fd:file"})); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.read(func() bool { return m.migration == "completed" || m.migration == "failed" }); err != nil {
		return err
	}
	if m.migration == "failed" {
		return errors.New("the emulator's migration failed")
	}
	return nil
}
