package main

import (
	"encoding/json"
	"errors"
	"net"
	"os"
	"slices"
)

// saved is the double's state file: the configuration of the VM. The memory file is QEMU's
// migration stream, with all devices.
type saved struct {
	Magic, Version       string
	CPUs, Memory         int
	HugePages            bool
	Kernel, Initrd, Args string
	Drives               []savedDrive
	NICs                 []savedNIC
	Vsock                string
	Entropy              bool
	Balloon, Reporting   bool
	Length               int64 // of the memory file
}

type savedDrive struct {
	drive
	Serial string
}

type savedNIC struct {
	Name, Device, MAC string
	MTU               int
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
		if m.session != nil && !before(1, 15, 0) {
			m.session.drop() // the devices are prepared before the CPUs are checked (lib.rs, save_state)
		}
		return nil, faultf("Create snapshot error: Cannot save the microVM state: Operation not allowed: save/restore unavailable while running")
	// Firecracker would use mincore(2), which is wrong once pages are swapped out, so no caller may
	// rely on that.
	case b.Type == "Diff" && !m.trackDirty:
		return nil, faultf("Create snapshot error: Cannot get dirty bitmap: dirty page tracking is not enabled")
	}
	m.resetSent = true // the devices do so before any file is opened (lib.rs, save_state; device_manager/persist.rs)
	if m.session != nil {
		defer m.session.drop() // all connections are reset (docs/snapshotting/snapshot-support.md)
	}
	if err := m.writeState(b.State, 0); err != nil {
		return nil, faultf("Create snapshot error: Cannot perform open on the snapshot backing file: %w", err)
	}
	f, err := os.OpenFile(b.Memory, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, faultf("Create snapshot error: Cannot perform open on the memory backing file: %w", err)
	}
	defer f.Close()
	if os.Getenv("DOUBLE_STOPS_AT") == "/snapshot/create" { // a fault that tests ask for
		select {}
	}
	if err := m.migrate("migrate", f); err != nil {
		return nil, faultf("Create snapshot error: Cannot write memory file: Cannot dump memory: %w", err)
	}
	info, err := f.Stat()
	if err == nil {
		err = m.writeState(b.State, info.Size())
	}
	if err != nil {
		return nil, faultf("Create snapshot error: Cannot perform flush on the snapshot backing file: %w", err)
	}
	return nil, nil
}

func (m *microVM) writeState(path string, length int64) error {
	s := saved{
		Magic:     magic,
		Version:   playedVersion(),
		CPUs:      m.cpus,
		Memory:    m.memory,
		HugePages: m.hugePages,
		Kernel:    m.kernel,
		Initrd:    m.initrd,
		Args:      m.args,
		Vsock:     m.vsockPath,
		Entropy:   m.entropy,
		Balloon:   m.balloon,
		Reporting: m.reporting,
		Length:    length,
	}
	for _, d := range m.drives {
		s.Drives = append(s.Drives, savedDrive{d, d.serial})
	}
	for _, n := range m.nics {
		s.NICs = append(s.NICs, savedNIC{n.id, n.device, n.mac, n.mtu})
	}
	data, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return os.WriteFile(path, data, 0o600)
}

// load is the body of /snapshot/load.
type load struct {
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
		ID     *string `json:"iface_id"`
		Device *string `json:"host_dev_name"`
	} `json:"network_overrides"`
	Vsock *struct {
		Path *string `json:"uds_path"`
	} `json:"vsock_override"`
	Clock bool `json:"clock_realtime"`
}

// parseLoad decodes a body (api_server/request/snapshot.rs).
func parseLoad(body []byte) (b load, err error) {
	if err := decode(body, &b, "snapshot_path"); err != nil {
		return b, err
	}
	if err := since(1, 13, body, "track_dirty_pages"); err != nil {
		return b, err
	}
	if err := since(1, 16, body, "vsock_override", "clock_realtime"); err != nil {
		return b, err
	}
	switch {
	case b.Memory != nil && b.MemoryPath != "":
		return b, badBody("too many fields: either `mem_backend` or `mem_file_path` exclusively is required")
	case b.Memory == nil && b.MemoryPath == "":
		return b, badBody("missing field: either `mem_backend` or `mem_file_path` is required")
	case b.Memory != nil && b.Memory.Type == "":
		return b, badBody("missing field `backend_type`")
	case b.Memory != nil && b.Memory.Path == "":
		return b, badBody("missing field `backend_path`")
	case b.Vsock != nil && b.Vsock.Path == nil:
		return b, badBody("missing field `uds_path`")
	}
	for _, n := range b.Networks {
		if n.ID == nil || n.Device == nil {
			return b, badBody("missing field `iface_id` or `host_dev_name`")
		}
	}
	if b.Memory != nil {
		b.MemoryPath = b.Memory.Path
		err = oneOf(b.Memory.Type, "File", "Uffd")
	}
	return b, err
}

func loadSnapshot(m *microVM, _ string, body []byte) (any, error) {
	b, err := parseLoad(body)
	if err != nil {
		return nil, err
	}
	if m.state != notStarted {
		return nil, errPostBoot
	}
	if m.bootPath {
		return nil, faultf(
			"Load snapshot error: Loading a microVM snapshot not allowed after configuring boot-specific resources.")
	}
	if b.Memory != nil && b.Memory.Type == "Uffd" {
		return nil, faultf("the double loads from files only")
	}
	m.trackDirty = b.Track || b.Diff
	if err := m.restore(b); err != nil {
		m.fatal = true // the process is in an undefined state and must end (rpc_interface.rs)
		return nil, faultf("Load snapshot error: Failed to restore from snapshot: %w", err)
	}
	return nil, nil
}

// readState reads a state file and applies the overrides of the body.
func readState(b load) (s saved, err error) {
	data, err := os.ReadFile(b.State)
	if err != nil {
		return s, faultf("Failed to get snapshot state from file: Failed to open snapshot file: %w", err)
	}
	switch err := json.Unmarshal(data, &s); {
	case err != nil:
		return s, faultf(
			"Failed to get snapshot state from file: Failed to load snapshot state from file: CRC64 validation failed")
	case s.Magic != magic:
		return s, faultf("Failed to get snapshot state from file: Failed to load snapshot state from file: Magic value does not match arch: 0")
	case s.Version != playedVersion():
		return s, faultf(
			"Failed to get snapshot state from file: Failed to load snapshot state from file: Invalid data version: %s",
			s.Version)
	}
	for _, o := range b.Networks {
		i := slices.IndexFunc(s.NICs, func(n savedNIC) bool { return n.Name == *o.ID })
		if i < 0 {
			return s, faultf("Failed to get snapshot state from file: Unknown Network Device.")
		}
		s.NICs[i].Device = *o.Device
	}
	if b.Vsock != nil && s.Vsock == "" {
		return s, faultf("Failed to get snapshot state from file: Unknown Vsock Device.")
	}
	if b.Vsock != nil {
		s.Vsock = *b.Vsock.Path
	}
	return s, nil
}

// openMemory opens a memory file. It returns a fault if its length has changed.
func openMemory(path string, s saved) (*os.File, error) {
	const failed = "Failed to load guest memory: Error creating guest memory from file: "
	if s.HugePages {
		return nil, faultf(failed + "Cannot restore hugetlbfs backed snapshot by mapping the memory file. Please use uffd.")
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, faultf(failed+"Failed to load guest memory: %w", err)
	}
	if info, err := f.Stat(); err != nil || info.Size() < s.Length {
		f.Close()
		return nil, faultf(failed +
			"Failed to restore guest memory: Total sum of memory regions exceeds largest possible file offset")
	}
	return f, nil
}

// configureFrom opens what the saved VM had, drives at their old paths.
func (m *microVM) configureFrom(s saved) (err error) {
	const failed = "Failed to build microVM from snapshot: Failed to restore devices: "
	m.cpus, m.memory, m.kernel, m.initrd, m.args = s.CPUs, s.Memory, s.Kernel, s.Initrd, s.Args
	m.entropy, m.balloon, m.reporting, m.vsockPath = s.Entropy, s.Balloon, s.Reporting, s.Vsock
	for _, d := range s.Drives {
		if _, err := os.Stat(d.Path); err != nil {
			return faultf(failed+"Error manipulating the backing file: %w", err)
		}
		d.drive.serial = d.Serial // the guest knows this number
		m.drives = append(m.drives, d.drive)
	}
	for _, n := range s.NICs {
		tap, err := openTap(n.Device)
		if err != nil {
			return faultf(failed+"Open tap device failed: %w", err)
		}
		m.nics = append(m.nics, nic{id: n.Name, device: n.Device, tap: tap, mac: n.MAC, mtu: n.MTU})
	}
	if m.vsockPath != "" {
		if m.vsock, err = net.Listen("unix", m.vsockPath); err != nil {
			return faultf(failed+"Error binding to the host-side Unix socket: %w", err)
		}
	}
	return nil
}

// restore starts QEMU and makes it read the memory file.
func (m *microVM) restore(b load) error {
	s, err := readState(b)
	if err != nil {
		return err
	}
	f, err := openMemory(b.MemoryPath, s)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := m.configureFrom(s); err != nil {
		return err
	}
	m.incoming = true
	m.loading.Store(true)
	if err := m.start(); err != nil {
		return err
	}
	m.state = paused
	if err := m.migrate("migrate-incoming", f); err != nil {
		return err
	}
	m.loading.Store(false)
	m.resetSent = true // the event is part of the saved state
	if !b.Resume {
		return nil
	}
	return m.resume()
}

// migrate writes QEMU's stream to a file, or reads it from there.
func (m *microVM) migrate(command string, f *os.File) error {
	m.migration = ""
	if err := errors.Join(
		m.qmp("migrate-set-capabilities",
			map[string]any{"capabilities": []any{map[string]any{"capability": "events", "state": true}}}),
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
