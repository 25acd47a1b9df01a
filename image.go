package banger

import "time"

// ImageConfig is the part of an OCI image config that running a command needs
// (OCI image-spec config.md).
type ImageConfig struct {
	Entrypoint []string          `json:"entrypoint,omitempty"`
	Cmd        []string          `json:"cmd,omitempty"`
	Env        []string          `json:"env,omitempty"`
	WorkingDir string            `json:"working_dir,omitempty"`
	User       string            `json:"user,omitempty"`
	StopSignal string            `json:"stop_signal,omitempty"`
	Labels     map[string]string `json:"labels,omitempty"`
}

// Image is one converted image: an OCI manifest and the ext4 rootfs made of it.
type Image struct {
	Reference string      `json:"reference"` // as normalised: docker.io/library/debian:bookworm, debian-bookworm, oci:/dir:tag
	Digest    string      `json:"digest"`    // sha256:… of the manifest; names the rootfs
	Platform  string      `json:"platform"`  // linux/amd64
	Size      int64       `json:"size"`      // bytes the rootfs occupies on the host
	PulledAt  time.Time   `json:"pulled_at"`
	Config    ImageConfig `json:"config"`
	Systemd   bool        `json:"systemd"` // /sbin/init of the image is systemd
	Layers    []string    `json:"layers"`  // diffIDs, base first
}

// Kernel is one installed guest kernel.
type Kernel struct {
	Name    string    `json:"name"`    // "debian-6.1.0-37-cloud-amd64"
	Version string    `json:"version"` // uname -r
	Source  string    `json:"source"`  // where it came from, for a person
	Default bool      `json:"default"`
	Size    int64     `json:"size"` // bytes on the host
	AddedAt time.Time `json:"added_at"`
}
