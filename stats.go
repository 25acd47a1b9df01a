package banger

import "time"

// Stats is what a running VM has used of its host since it was started.
type Stats struct {
	ID   string    `json:"id"`
	Name string    `json:"name"`
	At   time.Time `json:"at"` // when it was read
	// CPUTime is that of the VMM: the guest, and the devices that are emulated for it.
	CPUTime     time.Duration `json:"cpu_ns"`
	CPUs        int           `json:"cpus"`
	Memory      int64         `json:"memory"`       // bytes of the host's memory that the VMM holds
	MemoryLimit int64         `json:"memory_limit"` // bytes that the guest has
	DiskRead    uint64        `json:"disk_read"`    // bytes, of all drives
	DiskWritten uint64        `json:"disk_written"`
	NetIn       uint64        `json:"net_in"` // bytes of frames to the guest
	NetOut      uint64        `json:"net_out"`
}

// CPUPercent is the share of one CPU in percent that was used since an earlier reading of
// the same VM; 0 when the readings do not follow on each other.
func (s Stats) CPUPercent(earlier Stats) float64 {
	took := s.At.Sub(earlier.At)
	if took <= 0 || s.CPUTime < earlier.CPUTime { // started anew meanwhile
		return 0
	}
	return 100 * float64(s.CPUTime-earlier.CPUTime) / float64(took)
}
