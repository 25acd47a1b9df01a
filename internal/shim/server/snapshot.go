package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"banger"
	"banger/internal/shim"
	"banger/internal/untrusted"
	"banger/internal/vmm"
)

// snapshot writes the VM to shim.SnapDir, puts an overlay on its disk at the same instant, and lets it go on.
func (s *server) snapshot(arg string) (paused time.Duration, err error) {
	s.suspending.Lock()
	defer s.suspending.Unlock()
	over, ok := s.proc.(vmm.Overlayer)
	switch {
	case s.suspended.Load():
		return 0, errors.New("the VM is suspended")
	case !ok:
		return 0, errors.New("its VMM cannot write down a VM that goes on")
	}
	var r shim.Snapshot
	if err := json.Unmarshal([]byte(arg), &r); err != nil {
		return 0, err
	}
	top, frozen, err := openLayers(r)
	if err != nil {
		return 0, err
	}
	defer top.Close()
	defer frozen.Close()
	ctx, cancel := context.WithTimeout(context.Background(), suspendTime)
	defer cancel()
	commit, paused, err := s.instant(ctx, over, r.Disk, top, frozen)
	if err == nil {
		err = commit()
	}
	if err != nil && isFull(".") {
		err = banger.Errorf(banger.CodeDisk, "the disk is full: %w", err)
	}
	return paused, err
}

// openLayers opens the files of a shim.Snapshot.
func openLayers(r shim.Snapshot) (top, frozen *os.File, err error) {
	for _, name := range []string{r.Overlay, r.Frozen} {
		if name != filepath.Base(name) {
			return nil, nil, fmt.Errorf("%.100q is no name of a file", name)
		}
	}
	if top, err = untrusted.Open(r.Overlay, os.O_RDWR, 0); err != nil {
		return nil, nil, err
	}
	if frozen, err = untrusted.Open(r.Frozen, os.O_RDONLY, 0); err != nil {
		top.Close()
		return nil, nil, err
	}
	return top, frozen, nil
}

// instant stops the VM, takes what a snapshot has, and lets the VM go on.
func (s *server) instant(ctx context.Context, over vmm.Overlayer, disk bool, top, frozen *os.File) (commit func() error,
	paused time.Duration, err error) {
	if _, err := s.agent().Hold(ctx); err != nil {
		return nil, 0, err
	}
	began := time.Now()
	commit, err = s.whilePaused(ctx, over, disk, top, frozen)
	if _, terr := s.agent().Thaw(ctx); terr != nil {
		err = errors.Join(err, fmt.Errorf("the programs of the VM stay stopped: %w", terr))
	}
	return commit, time.Since(began), err
}

// whilePaused writes the VM down, or only its disk.
func (s *server) whilePaused(ctx context.Context, over vmm.Overlayer, disk bool,
	top, frozen *os.File) (commit func() error, err error) {
	if err := s.proc.Pause(ctx); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.proc.Resume(ctx)) }()
	commit = func() error { return nil }
	if !disk {
		if err := s.recorder.copyTo(shim.SnapDir); err != nil {
			return nil, err
		}
		if commit, err = over.WriteDown(ctx, shim.SnapDir); err != nil {
			return nil, err
		}
	}
	if err := over.Overlay(ctx, "disk", top, frozen); err != nil {
		return nil, err
	}
	s.disk.Store(filepath.Base(top.Name()))
	return commit, nil
}

// diskName returns the name of the file to which the disk of a VM writes at its start.
func diskName(c vmm.Config) string {
	for _, d := range c.Drives {
		if d.Serial == "disk" {
			return filepath.Base(d.Path)
		}
	}
	return ""
}

// copyTo copies what is recorded to another directory.
func (r *recorder) copyTo(dir string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.storePosition(filepath.Join(dir, positionFile)); err != nil {
		return err
	}
	return r.log.CopyTo(filepath.Join(dir, shim.OutputFile))
}
