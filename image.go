package banger

import "time"

// ImageConfig is the part of an OCI image config that is needed to run a command (OCI image-spec config.md).
type ImageConfig struct {
	Entrypoint []string          `json:"entrypoint,omitempty"`
	Cmd        []string          `json:"cmd,omitempty"`
	Env        []string          `json:"env,omitempty"`
	WorkingDir string            `json:"working_dir,omitempty"`
	User       string            `json:"user,omitempty"`
	StopSignal string            `json:"stop_signal,omitempty"`
	Exposed    []string          `json:"exposed,omitempty"` // ports as the image declares them: 80/tcp
	Volumes    []string          `json:"volumes,omitempty"` // directories that a container engine would keep elsewhere
	Labels     map[string]string `json:"labels,omitempty"`
	Health     *Probe            `json:"health,omitempty"`
}

// Image is one converted image: an OCI manifest and the ext4 rootfs made from it.
type Image struct {
	// Reference is normalised: docker.io/library/debian:bookworm, debian-bookworm, oci:/dir:tag.
	Reference string `json:"reference"`
	Digest    string `json:"digest"` // sha256:… of the manifest; names the rootfs
	// ConfigDigest is the sha256:… of the config. Together with Converter it identifies the content of the rootfs.
	ConfigDigest string      `json:"config_digest"`
	Converter    int         `json:"converter"`        // version of the converter that made the rootfs
	Platform     string      `json:"platform"`         // linux/amd64
	Created      time.Time   `json:"created,omitzero"` // as the builder of the image stated it
	Size         int64       `json:"size"`             // bytes the rootfs occupies on the host
	PulledAt     time.Time   `json:"pulled_at"`
	Config       ImageConfig `json:"config"`
	Systemd      bool        `json:"systemd"`          // /sbin/init of the image is systemd
	Layers       []string    `json:"layers,omitempty"` // diffIDs, base first; none in an image without files
	// Moved means that the registry's tag names another image now. Only a check sets it.
	Moved bool `json:"moved,omitempty"`
	// Unchecked says why a check could not ask the registry. Only a check sets it.
	Unchecked string `json:"unchecked,omitempty"`

	Blobs []Blob `json:"blobs,omitempty"` // the layers as stored, base first

	Kernel      string `json:"kernel,omitempty"`       // kernel of VMs of this image that name no other
	Foreign     string `json:"foreign,omitempty"`      // the registered file of the host that serves as the rootfs
	ForeignSize int64  `json:"foreign_size,omitempty"` // its length in bytes; Created is its modification time
}

// Blob is one stored blob of an image (image-spec descriptor.md).
type Blob struct {
	Digest    string `json:"digest"`
	Size      int64  `json:"size"` // bytes
	MediaType string `json:"media_type"`
}

// ImageStep is one step of an image's history (image-spec config.md).
type ImageStep struct {
	Created time.Time `json:"created,omitzero"`
	By      string    `json:"by"`
	Comment string    `json:"comment,omitempty"`
	Layer   string    `json:"layer,omitempty"` // digest of the blob; "" if the step made no blob
	Size    int64     `json:"size"`            // bytes of the blob
}

// ImageUsage is the space that an image takes on the host, in bytes.
type ImageUsage struct {
	Digest     string   `json:"digest"`
	References []string `json:"references,omitempty"`
	Rootfs     int64    `json:"rootfs"`
	Blobs      int64    `json:"blobs"`
	Shared     int64    `json:"shared"` // the part of both that other images use too
}

// Pruned lists what a prune removed, or what it would remove.
type Pruned struct {
	Images []string `json:"images,omitempty"` // digests
	Blobs  int      `json:"blobs"`            // blobs that belonged to no image
	Bytes  int64    `json:"bytes"`            // bytes that became free
	Kept   []Kept   `json:"kept,omitempty"`   // images that are still needed
}

// Kept is an image that a prune did not remove because something needs it.
type Kept struct {
	Image     string `json:"image"`               // digest
	Reference string `json:"reference,omitempty"` // a reference that names it
	// By is what needs the image, as the end of a sentence: "VM box", "the push of ...".
	By string `json:"by"`
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

// CommitNote is the note in the history of a committed image.
type CommitNote struct {
	Author  string `json:"author,omitempty"`
	Message string `json:"message,omitempty"`
}
