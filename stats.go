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

// CPUPercent returns the share of one CPU, in percent, that was used since an earlier reading of the same VM. It
// returns 0 if earlier is not an earlier reading of the same run.
func (s Stats) CPUPercent(earlier Stats) float64 {
	took := s.At.Sub(earlier.At)
	if took <= 0 || s.CPUTime < earlier.CPUTime { // the VM was restarted between the readings
		return 0
	}
	return 100 * float64(s.CPUTime-earlier.CPUTime) / float64(took)
}
