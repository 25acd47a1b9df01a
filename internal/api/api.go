// Package api is the daemon's end of the HTTP API: the routes, the server that answers them, and the document that
// describes them. It uses the nouns of package banger. It must not know how a supervisor does its work or how a client
// asks.
package api

import (
	"context"
	_ "embed"
	"io"
	"net"
	"time"

	"banger"
	"banger/internal/api/wire"
	"banger/internal/usage"
)

//go:embed openapi.json
var openAPI []byte

// Machines makes, runs and removes VMs.
type Machines interface {
	// Create makes a VM. secrets are the values of its secrets by name.
	Create(ctx context.Context, spec banger.Spec, secrets map[string][]byte, start bool, emit banger.Emit) (banger.VM,
		error)
	Start(ctx context.Context, ref string, attach, cold bool, emit banger.Emit) (banger.VM, error)
	Stop(ctx context.Context, ref string, grace time.Duration) (banger.VM, error)
	Restart(ctx context.Context, ref string, grace time.Duration, emit banger.Emit) (banger.VM, error)
	Kill(ctx context.Context, ref string, signal int) (banger.VM, error)
	Rename(ctx context.Context, ref, name string) (banger.VM, error)
	Remove(ctx context.Context, ref string, force bool) error
	Prune(ctx context.Context) ([]banger.VM, error)
}

// Sleepers lets VMs stand still, in memory or on disk, and go on.
type Sleepers interface {
	Pause(ctx context.Context, ref string) (banger.VM, error)
	// Suspend fails for a VM that has secrets, unless withSecrets is set.
	Suspend(ctx context.Context, ref string, withSecrets bool) (banger.VM, error)
	Resume(ctx context.Context, ref string, emit banger.Emit) (banger.VM, error)
}

// Updater changes what users want of VMs that are there.
type Updater interface {
	Update(ctx context.Context, ref string, u banger.Update) (banger.VM, error)
}

// Inventory lists VMs and their states.
type Inventory interface {
	Get(ref string) (banger.VM, error)
	List(keep func(banger.VM) bool) []banger.VM
	DiskUsed(id string) int64 // bytes of the host's disk
	Wait(ctx context.Context, ref string) (banger.VM, error)
	// Watch calls emit with what happens to VMs behind the cursor since, until ctx or emit ends it. If since is empty, or
	// changes behind it were missed, it first emits the whole state. It returns the error of emit.
	Watch(ctx context.Context, since string, emit func(banger.Change) error) error
}

// Histories is what VMs have used of their host.
type Histories interface {
	// Follow calls emit with lines of the history behind the cursor since, until ctx or emit ends it. It begins with the
	// whole state where it has to. It tells of one VM if vm is its id, and of the last day only if day is set.
	Follow(ctx context.Context, vm string, day bool, since string, emit func(usage.Metrics) error) error
}

// Guests gives access to the inside of running VMs.
type Guests interface {
	Exec(ctx context.Context, ref string, e banger.Exec) (net.Conn, error)
	Files(ctx context.Context, ref string, r banger.FileRequest) (net.Conn, error)
	// StatFile says what is at a path or, for FileList, in a directory.
	StatFile(ctx context.Context, ref string, r banger.FileRequest) (banger.FileInfo, error)
	SSH(ctx context.Context, ref string, r banger.SSH) (net.Conn, error)
	Stats(ctx context.Context, ref string) (banger.Stats, error)
	Processes(ctx context.Context, ref string) ([]banger.Process, error)
	Logs(ctx context.Context, ref string, tail int, follow bool, w io.Writer) error
	// Output writes frames of what v selects of the main command's output. It returns false without effects if only the
	// console has that.
	Output(ctx context.Context, ref string, v banger.LogView, w io.Writer) (bool, error)
}

// Connections changes the network connections of VMs.
type Connections interface {
	Ports(ctx context.Context, ref string, probe bool) ([]banger.Listener, error)
	AddForward(ctx context.Context, ref string, f banger.Forward) (banger.Forward, error)
	RemoveForward(ctx context.Context, ref string, f banger.Forward) error
	SetPolicy(ctx context.Context, ref string, p banger.Policy) (banger.VM, error)
	ConnectNetwork(ctx context.Context, ref, network string) (banger.VM, error)
}

// Decisions shows what the policies of VMs decide, and lets a rule count in front of one for a time.
type Decisions interface {
	// Write writes lines of JSON of banger.Decision: refusals and, with all, also flows that were allowed.
	Write(ctx context.Context, ref string, all bool, tail int, follow bool, w io.Writer) error
	AllowOnce(ctx context.Context, ref string, r banger.Rule, seconds int) error
}

// Networks manages the networks that VMs can use.
type Networks interface {
	Networks(ctx context.Context) ([]banger.Network, error)
	Network(ctx context.Context, name string) (banger.Network, error)
	CreateNetwork(ctx context.Context, n banger.Network) (banger.Network, error)
	RemoveNetwork(ctx context.Context, name string) error
}

// Images lists images, and names and removes them.
type Images interface {
	Images() ([]banger.Image, error)
	CheckImages(ctx context.Context) ([]banger.Image, error)
	Image(ref string) (banger.Image, error)
	ImageHistory(ctx context.Context, ref string) ([]banger.ImageStep, error)
	ImageUsage() ([]banger.ImageUsage, error)
	TagImage(source, target string) (banger.Image, error)
	PruneImages(all, dryRun bool) (banger.Pruned, error)
	RemoveImage(ref string) error
}

// Transfers imports and exports images.
type Transfers interface {
	PullImage(ctx context.Context, ref, platform string, emit banger.Emit) (banger.Image, error)
	PushImage(ctx context.Context, ref string, emit banger.Emit) (banger.Image, error)
	CommitVM(ctx context.Context, vm, target string, note banger.CommitNote, emit banger.Emit) (banger.Image, error)
	RegisterImage(ctx context.Context, name, rootfs, kernel string) (banger.Image, error)
	PromoteImage(ctx context.Context, ref string) (banger.Image, error)
	SaveImages(refs []string) (write func(context.Context, io.Writer) error, err error)
	LoadImages(ctx context.Context, r io.Reader, emit banger.Emit) ([]banger.Image, error)
	ExtendImage(ctx context.Context, base, target string, layer io.Reader, note banger.CommitNote,
		emit banger.Emit) (banger.Image, error)
}

// Kernels is the part of the kernel store that the API needs.
type Kernels interface {
	PullKernel(ctx context.Context, emit banger.Emit) (banger.Kernel, error)
	ImportKernel(ctx context.Context, name, image, modules string, emit banger.Emit) (banger.Kernel, error)
	Kernels() ([]banger.Kernel, error)
	Kernel(name string) (banger.Kernel, error)
	RemoveKernel(name string) error
}

// Templates is the frozen guests from which VMs start.
type Templates interface {
	List() ([]banger.Template, error)
	// Remove removes the template whose id starts with ref.
	Remove(ref string) (banger.Template, error)
	// Prune removes the templates from which no VM can start any more or, with all, every template.
	Prune(all, dryRun bool) ([]banger.Template, error)
}

// UI is the web UI, which a process of its own serves.
type UI interface {
	// Open returns an address for one browser. It works once, and for a minute.
	Open(ctx context.Context) (string, error)
	// Close ends the UI and the sessions of all browsers.
	Close(ctx context.Context) error
}

// Reporter says how banger is doing on its host.
type Reporter interface {
	Checks(ctx context.Context) []wire.Check
	// Usage returns what is on the disk, by kind. With each, it also returns each VM and each snapshot.
	Usage(each bool) ([]wire.Usage, error)
	// CheckLog returns an error if there is no log that Log could read.
	CheckLog() error
	Log(ctx context.Context, tail int, follow bool, w io.Writer) error
}

const (
	maxBody = 1 << 20 // bytes of a request body
	ndjson  = "application/x-ndjson"
)
