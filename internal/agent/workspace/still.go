package workspace

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/frame"
	"banger/internal/guest"
)

// Still is the workspaces of another guest, whose disk is mounted for reading. Nothing of it is written, and no
// workspace is mounted at a path. The other guest may have made anything of its disk.
type Still struct {
	Dir  string                    // what that guest has opened
	Load func(module string) error // loads a module of the kernel
}

// Serve answers a request, as Manager.Serve does.
func (s Still) Serve(ctx context.Context, w io.Writer, frames *frame.Reader, req guest.Request) (kind frame.Type,
	answer any, err error) {
	switch req.Op {
	case guest.OpWorkspaces:
		answer, err = s.List()
		return frame.Response, answer, err
	case guest.OpWorkspaceChanges:
		answer, err = s.Changes(ctx, w, frames, requestOf(req))
		return frame.Exit, answer, err
	}
	return 0, nil, banger.Errorf(banger.CodeConflict, "the workspaces of a VM that does not run can only be read").
		WithHint("start the VM")
}

// List returns all workspaces, the newest first.
func (s Still) List() ([]banger.Workspace, error) {
	records, err := s.records()
	if err != nil {
		return nil, banger.Errorf(banger.CodeGuest, "the workspaces cannot be read: %w", banger.Cause(err))
	}
	list := []banger.Workspace{}
	for _, r := range records {
		list = append(list, r.Workspace)
	}
	return sorted(list), nil
}

// beneath is how a directory is opened without a symlink on the way.
var beneath = unix.OpenHow{Flags: openDir, Resolve: unix.RESOLVE_NO_SYMLINKS}

// records returns what is stored of the workspaces. A record that is broken has an error.
func (s Still) records() (list []record, err error) {
	top := &dir{base: -1}
	if top.upper, err = unix.Openat2(unix.AT_FDCWD, s.Dir, &beneath); err != nil {
		if errors.Is(err, unix.ENOENT) { // the guest has never opened it
			return nil, nil
		}
		return nil, err
	}
	defer top.close()
	names, err := top.names()
	if err != nil {
		return nil, err
	}
	isTaken := func(name string) bool {
		return slices.ContainsFunc(list, func(r record) bool { return r.Name == name })
	}
	for _, id := range names {
		if guest.CheckWorkspaceID(id) != nil || len(list) == guest.MaxWorkspaces {
			continue
		}
		r := broken(id)
		at, err := unix.Openat(top.upper, id, openDir, 0)
		if err == nil {
			r, err = readRecord(at, id, isTaken)
			unix.Close(at)
			if errors.Is(err, unix.ENOENT) { // it was not made to its end
				continue
			}
		}
		if err != nil {
			r.Error = banger.Cause(err).Error()
		}
		list = append(list, r)
	}
	return list, nil
}

// Changes writes what has changed in a workspace, as Manager.Changes does.
func (s Still) Changes(ctx context.Context, w io.Writer, frames *frame.Reader,
	r guest.WorkspaceRequest) (report banger.WorkspaceReport, err error) {
	if err := r.CheckPart(); err != nil {
		return report, err
	}
	tracked, err := readTracked(frames)
	if err != nil {
		return report, err
	}
	top, err := s.open(r.Name)
	if err == nil {
		defer top.close()
		report, err = send(ctx, w, top, tracked, r)
	}
	if err != nil {
		return report, failed("reading the changes of", r.Name, err)
	}
	return report, nil
}

// open opens the top of a workspace.
func (s Still) open(name string) (*dir, error) {
	list, err := s.records()
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(list, func(r record) bool { return r.Name == name })
	if i < 0 {
		return nil, notFound(name)
	}
	if r := list[i]; r.Error != "" {
		return nil, errors.New(r.Error)
	}
	at, err := unix.Openat2(unix.AT_FDCWD, s.Dir+"/"+list[i].ID, &beneath)
	if err != nil {
		return nil, err
	}
	defer unix.Close(at)
	top := &dir{upper: -1, base: -1}
	upper := strconv.Itoa(list[i].Generation) + "/upper"
	if top.upper, err = unix.Openat2(at, upper, &beneath); err == nil {
		top.base, err = s.baseline(at)
	}
	if err != nil {
		top.close()
		return nil, err
	}
	return top, nil
}

// baseline mounts the baseline in the directory of a workspace, and opens it. The mount has no path, and ends when
// nothing of it is open.
func (s Still) baseline(at int) (int, error) {
	image, _, err := openFile(at, imageFile)
	if err != nil {
		return -1, err
	}
	defer image.Close()
	loop, err := attach(image, s.Load)
	if err != nil {
		return -1, err
	}
	defer loop.Close() // the mount keeps the device
	fs, err := unix.Fsopen("ext4", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("the kernel has no ext4: %w", err)
	}
	defer unix.Close(fs)
	err = errors.Join(unix.FsconfigSetString(fs, "source", loop.Name()), unix.FsconfigSetFlag(fs, "ro"),
		unix.FsconfigSetString(fs, "errors", "continue"))
	if err == nil {
		err = unix.FsconfigCreate(fs)
	}
	mount := -1
	if err == nil {
		const flags = unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NOEXEC
		mount, err = unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, flags)
	}
	if err != nil {
		return -1, fmt.Errorf("the baseline cannot be mounted: %w", err)
	}
	defer unix.Close(mount)
	return unix.Openat(mount, ".", openDir, 0)
}
