package firecracker

// The bodies of the requests that we send and of the answers that we read. They are named and
// spelled as in Firecracker's API description (src/firecracker/swagger/firecracker.yaml,
// definitions of the same names; version 1.16.1). TestTheAPIHasNotDrifted compares them.

// BootSource is the kernel, the initramfs and the kernel's command line.
type BootSource struct {
	KernelImagePath string `json:"kernel_image_path"`
	InitrdPath      string `json:"initrd_path,omitempty"`
	BootArgs        string `json:"boot_args,omitempty"`
}

// MachineConfiguration is the size of the machine.
type MachineConfiguration struct {
	VcpuCount  int    `json:"vcpu_count"` // 1 to 32
	MemSizeMib int    `json:"mem_size_mib"`
	SMT        bool   `json:"smt,omitempty"`
	HugePages  string `json:"huge_pages,omitempty"`
}

// Drive is a virtio block device.
type Drive struct {
	DriveID      string `json:"drive_id"`
	IsRootDevice bool   `json:"is_root_device"`
	PathOnHost   string `json:"path_on_host,omitempty"`
	IsReadOnly   bool   `json:"is_read_only"`
	CacheType    string `json:"cache_type,omitempty"`
	IOEngine     string `json:"io_engine,omitempty"`
}

// NetworkInterface is a virtio net device.
type NetworkInterface struct {
	IfaceID     string `json:"iface_id"`
	HostDevName string `json:"host_dev_name"`
	GuestMAC    string `json:"guest_mac,omitempty"`
	MTU         int    `json:"mtu,omitempty"` // 68 to 65535; since 1.16
}

// Vsock is the vsock device.
type Vsock struct {
	GuestCID int    `json:"guest_cid"` // at least 3
	UDSPath  string `json:"uds_path"`
}

// Balloon is the balloon device.
type Balloon struct {
	AmountMib         int  `json:"amount_mib"`
	DeflateOnOOM      bool `json:"deflate_on_oom"`
	FreePageHinting   bool `json:"free_page_hinting,omitempty"`   // since 1.14
	FreePageReporting bool `json:"free_page_reporting,omitempty"` // since 1.14
}

// EntropyDevice is the source of randomness.
type EntropyDevice struct{}

// SerialDevice is the serial port. Without a path it is standard output.
type SerialDevice struct {
	RateLimiter *TokenBucket `json:"rate_limiter,omitempty"` // since 1.16
}

// TokenBucket limits a rate.
type TokenBucket struct {
	Size         int64 `json:"size"`
	OneTimeBurst int64 `json:"one_time_burst,omitempty"`
	RefillTime   int64 `json:"refill_time"` // milliseconds
}

// Logger says where the log goes.
type Logger struct {
	LogPath   string `json:"log_path,omitempty"`
	Level     string `json:"level,omitempty"`
	ShowLevel bool   `json:"show_level,omitempty"`
}

// Metrics says where the metrics go.
type Metrics struct {
	MetricsPath string `json:"metrics_path"`
}

// InstanceActionInfo names an action.
type InstanceActionInfo struct {
	ActionType string `json:"action_type"`
}

// VM is the requested state of a machine.
type VM struct {
	State string `json:"state"`
}

// SnapshotCreateParams says where a snapshot is written.
type SnapshotCreateParams struct {
	SnapshotType string `json:"snapshot_type,omitempty"`
	SnapshotPath string `json:"snapshot_path"`
	MemFilePath  string `json:"mem_file_path"`
}

// SnapshotLoadParams says which snapshot to load.
type SnapshotLoadParams struct {
	SnapshotPath     string            `json:"snapshot_path"`
	MemBackend       *MemoryBackend    `json:"mem_backend,omitempty"`
	ResumeVM         bool              `json:"resume_vm,omitempty"`
	NetworkOverrides []NetworkOverride `json:"network_overrides,omitempty"`
	VsockOverride    *VsockOverride    `json:"vsock_override,omitempty"` // since 1.16
	ClockRealtime    bool              `json:"clock_realtime,omitempty"` // since 1.16
}

// MemoryBackend is the source of the guest's memory in a snapshot.
type MemoryBackend struct {
	BackendType string `json:"backend_type"`
	BackendPath string `json:"backend_path"`
}

// NetworkOverride gives a network interface of a snapshot another tap.
type NetworkOverride struct {
	IfaceID     string `json:"iface_id"`
	HostDevName string `json:"host_dev_name"`
}

// VsockOverride gives the vsock device of a snapshot another socket.
type VsockOverride struct {
	UDSPath string `json:"uds_path"`
}

// InstanceInfo is what an instance reports about itself.
type InstanceInfo struct {
	AppName    string `json:"app_name"`
	ID         string `json:"id"`
	State      string `json:"state"`
	VMMVersion string `json:"vmm_version"`
}

// Error is the body of an answer with an error status.
type Error struct {
	FaultMessage string `json:"fault_message"`
}

// The values of enumerations, by definition and property.
const (
	actionInstanceStart = "InstanceStart"
	actionFlushMetrics  = "FlushMetrics"
	vmPaused            = "Paused"
	vmResumed           = "Resumed"
	statePaused         = "Paused"
	cacheUnsafe         = "Unsafe"
	cacheWriteback      = "Writeback"
	engineSync          = "Sync"
	snapshotFull        = "Full"
	backendFile         = "File"
	levelWarning        = "Warning"
	hugePages2M         = "2M"
)

// enums lists the values that we use of each enumeration.
var enums = map[string][]string{
	"InstanceActionInfo.action_type":     {actionInstanceStart, actionFlushMetrics},
	"Vm.state":                           {vmPaused, vmResumed},
	"InstanceInfo.state":                 {statePaused},
	"Drive.cache_type":                   {cacheUnsafe, cacheWriteback},
	"Drive.io_engine":                    {engineSync},
	"SnapshotCreateParams.snapshot_type": {snapshotFull},
	"MemoryBackend.backend_type":         {backendFile},
	"Logger.level":                       {levelWarning},
	"MachineConfiguration.huge_pages":    {hugePages2M},
}
