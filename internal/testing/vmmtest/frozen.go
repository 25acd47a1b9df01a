package vmmtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"banger/internal/guest"
	"banger/internal/vmm"
)

// frozen is a process of a Memory driver with Templates. Its snapshots have no memory: a VM that goes on from one
// starts anew.
type frozen struct{ *process }

// Snapshot writes the files of a snapshot.
func (p *frozen) Snapshot(_ context.Context, dir string) error {
	return vmm.TakeSnapshot(dir, func() error {
		for _, name := range []string{vmm.SnapshotState, vmm.SnapshotRAM} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(name), 0o600); err != nil {
				return err
			}
		}
		m, err := p.manifest()
		if err != nil {
			return err
		}
		return vmm.CommitSnapshot(dir, m)
	})
}

func (p *frozen) manifest() (vmm.Manifest, error) {
	return vmm.NewManifest(Memory{}.Name(), "1.0", p.config)
}

// freeze makes p a process whose guest waits for its host, as the console says. It returns an error if p goes on from a
// snapshot that does not fit.
func freeze(p *process, console io.Writer) (vmm.Process, error) {
	f := &frozen{p}
	fmt.Fprintln(console, "agent:", guest.Waiting)
	if p.config.Restore == "" {
		return f, nil
	}
	had, err := vmm.ManifestOf(p.config)
	if err != nil {
		return nil, err
	}
	has, err := f.manifest()
	if err != nil {
		return nil, err
	}
	if state, err := io.ReadAll(p.config.From.State); err != nil || string(state) != vmm.SnapshotState {
		return nil, errors.Join(err, fmt.Errorf("the state of the snapshot is %.20q", state))
	}
	return f, had.Match(has)
}
