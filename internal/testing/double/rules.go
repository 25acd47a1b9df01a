package main

import (
	"errors"
	"net"
	"net/http"
	"os"
)

// rule is one operation of the API.
type rule struct {
	method, path string
	named        bool // the path ends in the resource's name
	do           func(m *microVM, id string, body []byte) (any, error)
}

// Errors of requests that are not allowed before the start, or after it (rpc_interface.rs).
var (
	errPostBoot = faultf("The requested operation is not supported after starting the microVM.")
	errPreBoot  = faultf("The requested operation is not supported before starting the microVM.")
)

var rules = []rule{
	{http.MethodGet, "", false, getInstance},
	{http.MethodGet, "version", false, getVersion},
	{http.MethodPut, "logger", false, observing(putLogger)},
	{http.MethodPut, "metrics", false, observing(putMetrics)},
	{http.MethodPut, "machine-config", false, beforeStart(putMachine)},
	{http.MethodPut, "cpu-config", false, observing(putCPU)},
	{http.MethodPut, "boot-source", false, beforeStart(putBoot)},
	{http.MethodPut, "drives", true, beforeStart(putDrive)},
	{http.MethodPut, "network-interfaces", true, beforeStart(putNetwork)},
	{http.MethodPut, "vsock", false, beforeStart(putVsock)},
	{http.MethodPut, "entropy", false, beforeStart(putEntropy)},
	{http.MethodPut, "balloon", false, beforeStart(putBalloon)},
	{http.MethodPut, "serial", false, observing(putSerial)},
	{http.MethodPut, "actions", false, putAction},
	{http.MethodPatch, "vm", false, patchVM},
	{http.MethodPut, "snapshot/create", false, createSnapshot},
	{http.MethodPut, "snapshot/load", false, loadSnapshot},
}

func beforeStart(do func(*microVM, string, []byte) error) func(*microVM, string, []byte) (any, error) {
	return func(m *microVM, id string, body []byte) (any, error) {
		m.bootPath = true // nothing can be restored after this
		err := do(m, id, body)
		if m.state != notStarted && !isDecoding(err) { // the body is decoded before the state is checked
			err = errPostBoot
		}
		return nil, err
	}
}

// observing wraps a rule that is also allowed before a restore, because rpc_interface.rs does not
// count it as a step towards a boot.
func observing(do func(*microVM, string, []byte) error) func(*microVM, string, []byte) (any, error) {
	return func(m *microVM, id string, body []byte) (any, error) {
		boot := m.bootPath
		answer, err := beforeStart(do)(m, id, body)
		m.bootPath = boot
		return answer, err
	}
}

// isDecoding reports whether err says that a body could not be decoded.
func isDecoding(err error) bool {
	return err != nil && len(err.Error()) > 8 && err.Error()[:8] == "An error"
}

func getInstance(m *microVM, _ string, _ []byte) (any, error) {
	return map[string]string{"app_name": "Firecracker", "id": m.id, "state": m.state, "vmm_version": playedVersion()}, nil
}

func getVersion(*microVM, string, []byte) (any, error) {
	return map[string]string{"firecracker_version": playedVersion()}, nil
}

func putLogger(m *microVM, _ string, body []byte) error {
	var b struct {
		LogPath       string `json:"log_path"`
		Level         string `json:"level"`
		ShowLevel     bool   `json:"show_level"`
		ShowLogOrigin bool   `json:"show_log_origin"`
		Module        string `json:"module"`
	}
	if err := decode(body, &b); err != nil {
		return err
	}
	if err := oneOf(b.Level, logLevels...); err != nil || m.state != notStarted {
		return err
	}
	f, err := os.OpenFile(b.LogPath, os.O_RDWR|os.O_APPEND, 0) // also opens a pipe, without waiting for its reader
	if err != nil {
		return faultf("Logger error: Failed to open target file: %w", err)
	}
	m.log = f
	if b.Level != "" {
		m.level = b.Level
	}
	return nil
}

func putMetrics(m *microVM, _ string, body []byte) error {
	var b struct {
		Path string `json:"metrics_path"`
	}
	if err := decode(body, &b, "metrics_path"); err != nil || m.state != notStarted {
		return err
	}
	if m.metrics != nil {
		return faultf("Metrics error: Cannot initialize the metrics system due to bad user input: Reinitialization of metrics not allowed.")
	}
	f, err := os.OpenFile(b.Path, os.O_RDWR|os.O_APPEND, 0)
	if err != nil {
		return faultf("Metrics error: Cannot initialize the metrics system due to bad user input: %w", err)
	}
	m.metrics = f
	return nil
}

func putMachine(m *microVM, _ string, body []byte) error {
	var b struct {
		CPUs        int    `json:"vcpu_count"`
		Memory      int    `json:"mem_size_mib"`
		SMT         bool   `json:"smt"`
		CPUTemplate string `json:"cpu_template"`
		TrackDirty  bool   `json:"track_dirty_pages"`
		HugePages   string `json:"huge_pages"`
	}
	if err := decode(body, &b, "vcpu_count", "mem_size_mib"); err != nil {
		return err
	}
	if err := errors.Join(oneOf(b.CPUTemplate, "C3", "T2", "T2S", "T2CL", "T2A", "V1N1", "None"),
		oneOf(b.HugePages, "None", "2M")); err != nil || m.state != notStarted {
		return err
	}
	if b.CPUs < 1 || b.CPUs > 32 || b.SMT && b.CPUs != 1 && b.CPUs%2 != 0 {
		return faultf("Machine config error: The vCPU number is invalid! The vCPU number can only be 1 or an even number when SMT is enabled.")
	}
	if b.Memory < 1 || b.HugePages == "2M" && b.Memory%2 != 0 {
		return faultf("Machine config error: The memory size (MiB) is invalid.")
	}
	m.cpus, m.memory, m.trackDirty, m.hugePages = b.CPUs, b.Memory, b.TrackDirty, b.HugePages == "2M"
	return nil
}

func putCPU(m *microVM, _ string, body []byte) error {
	var b struct {
		Capabilities []string `json:"kvm_capabilities"`
		CPUID        []any    `json:"cpuid_modifiers"`
		MSR          []any    `json:"msr_modifiers"`
		Registers    []any    `json:"reg_modifiers"`
		Features     []any    `json:"vcpu_features"`
	}
	return decode(body, &b)
}

func putBoot(m *microVM, _ string, body []byte) error {
	var b struct {
		Kernel string `json:"kernel_image_path"`
		Initrd string `json:"initrd_path"`
		Args   string `json:"boot_args"`
	}
	if err := decode(body, &b, "kernel_image_path"); err != nil || m.state != notStarted {
		return err
	}
	if _, err := os.Open(b.Kernel); err != nil { // stays open, as in Firecracker
		return faultf("Boot source error: The kernel file cannot be opened: %w", err)
	}
	if b.Initrd != "" {
		if _, err := os.Open(b.Initrd); err != nil {
			return faultf("Boot source error: The initrd file cannot be opened due to invalid path or invalid permissions. %w",
				err)
		}
	}
	m.kernel, m.initrd, m.args = b.Kernel, b.Initrd, b.Args
	return nil
}

func putDrive(m *microVM, id string, body []byte) error {
	var b struct {
		drive
		PartUUID    string       `json:"partuuid"`
		Cache       string       `json:"cache_type"`
		Engine      string       `json:"io_engine"`
		Socket      string       `json:"socket"`
		RateLimiter *rateLimiter `json:"rate_limiter"`
	}
	if err := decode(body, &b, "drive_id", "is_root_device"); err != nil {
		return err
	}
	if err := errors.Join(oneOf(b.Cache, "Unsafe", "Writeback"), oneOf(b.Engine, "Sync", "Async")); err != nil {
		return err
	}
	if b.ID != id {
		return faultf("The id from the path does not match the id from the body!")
	}
	if m.state != notStarted {
		return nil
	}
	flags := os.O_RDWR
	if b.ReadOnly {
		flags = os.O_RDONLY
	}
	f, err := os.OpenFile(b.Path, flags, 0)
	if err != nil {
		return faultf("Drive config error: Unable to create the virtio block device: Virtio backend error: Error manipulating the backing file: %w %s", err, b.Path)
	}
	defer f.Close()
	if b.serial, err = imageID(f); err != nil {
		return err
	}
	m.drives = append(m.drives, b.drive)
	return nil
}

func putNetwork(m *microVM, id string, body []byte) error {
	var b struct {
		ID     string       `json:"iface_id"`
		Device string       `json:"host_dev_name"`
		MAC    string       `json:"guest_mac"`
		MTU    *int         `json:"mtu"`
		RX     *rateLimiter `json:"rx_rate_limiter"`
		TX     *rateLimiter `json:"tx_rate_limiter"`
	}
	if err := decode(body, &b, "iface_id", "host_dev_name"); err != nil {
		return err
	}
	if err := since(1, 16, body, "mtu"); err != nil {
		return err
	}
	if b.ID != id {
		return faultf("The id from the path does not match the id from the body!")
	}
	if m.state != notStarted {
		return nil
	}
	if _, err := net.ParseMAC(b.MAC); err != nil {
		return faultf("An error occurred when deserializing the json body of a request: %w.", err)
	}
	if b.MTU != nil && (*b.MTU < 68 || *b.MTU > 65535) {
		return faultf("Network config error: Invalid MTU: %d", *b.MTU)
	}
	tap, err := openTap(b.Device)
	if err != nil {
		return faultf("Network config error: Could not create the network device: Open tap device failed: %w", err)
	}
	n := nic{id: id, device: b.Device, tap: tap, mac: b.MAC}
	if b.MTU != nil {
		n.mtu = *b.MTU
	}
	m.nics = append(m.nics, n)
	return nil
}

func putVsock(m *microVM, _ string, body []byte) error {
	var b struct {
		CID  uint32 `json:"guest_cid"`
		Path string `json:"uds_path"`
		ID   string `json:"vsock_id"`
	}
	if err := decode(body, &b, "guest_cid", "uds_path"); err != nil || m.state != notStarted {
		return err
	}
	if b.CID < 3 {
		return faultf("Vsock config error: Cannot create vsock device: invalid CID %d", b.CID)
	}
	ln, err := net.Listen("unix", b.Path)
	if err != nil {
		return faultf(
			"Vsock config error: Cannot create backend for vsock device: Error binding to the host-side Unix socket: %w", err)
	}
	m.vsock, m.vsockPath = ln, b.Path
	return nil
}

func putEntropy(m *microVM, _ string, body []byte) error {
	var b struct {
		RateLimiter *rateLimiter `json:"rate_limiter"`
	}
	m.entropy = true
	return decode(body, &b)
}

func putBalloon(m *microVM, _ string, body []byte) error {
	var b struct {
		Amount    int  `json:"amount_mib"`
		OnOOM     bool `json:"deflate_on_oom"`
		Interval  int  `json:"stats_polling_interval_s"`
		Hinting   bool `json:"free_page_hinting"`
		Reporting bool `json:"free_page_reporting"`
	}
	if err := decode(body, &b, "amount_mib", "deflate_on_oom"); err != nil {
		return err
	}
	if err := since(1, 14, body, "free_page_hinting", "free_page_reporting"); err != nil {
		return err
	}
	if m.memory != 0 && b.Amount > m.memory {
		return faultf("Balloon config error: Amount of pages requested cannot fit in `u32`.")
	}
	m.balloon, m.reporting = true, b.Reporting
	return nil
}

func putSerial(m *microVM, _ string, body []byte) error {
	var b struct {
		Path    string       `json:"serial_out_path"`
		Limiter *tokenBucket `json:"rate_limiter"`
	}
	if err := decode(body, &b); err != nil {
		return err
	}
	if err := since(1, 16, body, "rate_limiter"); err != nil {
		return err
	}
	if b.Path != "" {
		return faultf("the double prints on standard output only")
	}
	return nil
}

func putAction(m *microVM, _ string, body []byte) (any, error) {
	var b struct {
		Type string `json:"action_type"`
	}
	if err := decode(body, &b, "action_type"); err != nil {
		return nil, err
	}
	if err := oneOf(b.Type, "FlushMetrics", "InstanceStart", "SendCtrlAltDel"); err != nil {
		return nil, err
	}
	switch {
	case b.Type == "InstanceStart" && m.state != notStarted:
		return nil, errPostBoot
	case b.Type == "InstanceStart":
		return nil, m.start()
	case m.state == notStarted:
		return nil, errPreBoot
	case b.Type == "FlushMetrics":
		return nil, m.flushMetrics()
	}
	return nil, m.qmp("send-key", map[string]any{"keys": []map[string]string{
		{"type": "qcode", "data": "ctrl"}, {"type": "qcode", "data": "alt"}, {"type": "qcode", "data": "delete"}}})
}

func patchVM(m *microVM, _ string, body []byte) (any, error) {
	var b struct {
		State string `json:"state"`
	}
	if err := decode(body, &b, "state"); err != nil {
		return nil, err
	}
	if err := oneOf(b.State, "Paused", "Resumed"); err != nil {
		return nil, err
	}
	if m.state == notStarted {
		return nil, errPreBoot
	}
	if b.State == "Paused" {
		m.state = paused
		return nil, m.qmp("stop", nil)
	}
	return nil, m.resume()
}

// resume lets the guest's CPUs run, and makes the devices handle what they missed.
func (m *microVM) resume() error {
	if m.session != nil {
		m.session.resumed(m.resetSent)
	}
	m.state, m.resetSent = running, false
	return m.qmp("cont", nil)
}

type tokenBucket struct {
	Size   uint64 `json:"size"`
	Burst  uint64 `json:"one_time_burst"`
	Refill uint64 `json:"refill_time"`
}

type rateLimiter struct {
	Bandwidth *tokenBucket `json:"bandwidth"`
	Ops       *tokenBucket `json:"ops"`
}
