package banger

import "time"

// Template is a guest that waits, frozen, at the place where all guests of its shape come by. VMs of that shape start
// from it.
type Template struct {
	ID          string `json:"id"`
	Image       string `json:"image"` // as the first VM of the shape named it
	ImageDigest string `json:"image_digest"`

	Start     string    `json:"start"` // of a VM: first, later, or booted (WarmBooted)
	Kernel    string    `json:"kernel"`
	VMM       string    `json:"vmm"`    // with its version
	Banger    string    `json:"banger"` // the version that has made it
	CPUs      int       `json:"cpus"`
	Memory    int64     `json:"memory"` // bytes of the guest
	Network   string    `json:"network"`
	Size      int64     `json:"size"` // bytes on the host
	CreatedAt time.Time `json:"created_at"`
	UsedAt    time.Time `json:"used_at,omitzero"` // the last start from it
}
