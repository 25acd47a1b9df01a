package banger

import "time"

// Stats is what a running VM has used of its host since its start.
type Stats struct {
	ID   string    `json:"id"`
	Name string    `json:"name"`
	At   time.Time `json:"at"` // time of the reading
	// CPUTime is the CPU time of the VMM: of the guest and of the devices emulated for it.
	CPUTime     time.Duration `json:"cpu_ns"`
	CPUs        int           `json:"cpus"`
	Memory      int64         `json:"memory"`       // bytes of host memory that the VMM holds
	MemoryLimit int64         `json:"memory_limit"` // bytes that the guest has
	DiskRead    uint64        `json:"disk_read"`    // bytes of all drives
	DiskWritten uint64        `json:"disk_written"`
	NetIn       uint64        `json:"net_in"` // bytes of frames sent to the guest
	NetOut      uint64        `json:"net_out"`
}
