// Package report says how banger is doing on this host: what the host can do, what is on the disk, and what the daemon
// has logged.
//
// It must not know how a report is printed or sent. It changes nothing.
package report

import (
	"context"
	"errors"
	"io"
	"time"

	"banger"
	"banger/internal/api/wire"
	"banger/internal/host"
	"banger/internal/logfile"
	"banger/internal/reset"
)

// Library is what VMs are made of.
type Library interface {
	ImageUsage() ([]banger.ImageUsage, error)
	PruneImages(all, dryRun bool) (banger.Pruned, error)
	Kernels() ([]banger.Kernel, error)
}

// Reporter reports on a daemon and its host. The caller sets its fields.
type Reporter struct {
	Home    reset.Home
	LogFile string // of the daemon; "" if it logs elsewhere

	Version   func(context.Context) wire.Version
	VMs       func(keep func(banger.VM) bool) []banger.VM
	Library   Library
	Templates func() ([]banger.Template, error)
	Snapshots func(vm string) ([]banger.Snapshot, error)
}

// patience is how long Checks waits for the programs and servers of the host.
const patience = 10 * time.Second

// Checks returns what this host can do, as the daemon sees it.
func (r *Reporter) Checks(ctx context.Context) []wire.Check {
	ctx, cancel := context.WithTimeout(ctx, patience) // it asks the resolver of the host
	defer cancel()
	v := r.Version(ctx)
	kvm := host.KVM{Usable: v.KVM == wire.KVMUsable, Reason: v.KVM}
	kernels, err := r.Library.Kernels()
	return append(append(Host(kvm, r.Home.State, v.VMMs), Daemon(ctx, v)...), Kernels(kernels, err))
}

// Usage returns what is on the disk, by kind. With each, it also returns each VM and each snapshot.
func (r *Reporter) Usage(each bool) ([]wire.Usage, error) {
	t := things{vms: r.VMs(func(banger.VM) bool { return true })}
	var errs [6]error
	t.images, errs[0] = r.Library.ImageUsage()
	t.unused, errs[1] = r.Library.PruneImages(true, true)
	t.kernels, errs[2] = r.Library.Kernels()
	t.templates, errs[3] = r.Templates()
	t.snapshots, errs[4] = r.Snapshots("")
	t.found, errs[5] = reset.Measure(r.Home)
	if err := errors.Join(errs[:]...); err != nil {
		return nil, err
	}
	return t.usage(each), nil
}

// CheckLog returns an error if the daemon has no file with its log.
func (r *Reporter) CheckLog() error {
	if r.LogFile != "" {
		return nil
	}
	return banger.Errorf(banger.CodeUnavailable, "this daemon has no file with its log: it was started by hand, "+
		"and writes where it was started").WithHint("look there, or let banger start it: banger daemon stop")
}

// Log writes the last tail lines of the daemon's log to w, or all lines if tail is negative. With follow it goes on
// with new lines until ctx ends.
func (r *Reporter) Log(ctx context.Context, tail int, follow bool, w io.Writer) error {
	return logfile.Read(ctx, r.LogFile, tail, follow, w)
}

func pass(name, detail string) wire.Check {
	return wire.Check{Name: name, Result: wire.Pass, Detail: detail}
}

func warn(name, detail, fix string) wire.Check {
	return wire.Check{Name: name, Result: wire.Warn, Detail: detail, Fix: fix}
}

func fail(name, detail, fix string) wire.Check {
	return wire.Check{Name: name, Result: wire.Fail, Detail: detail, Fix: fix}
}
