// Package workspace brings trees of a user into a guest, and brings home what the guest has made of them. What comes
// out of a guest goes into a quarantine: a repository apart, where git checks it. From there it reaches the user's
// working tree or repository only when the user asks for that, and never in a form that runs.
//
// The package must not know how a guest is reached, nor what a person is shown.
package workspace

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/blob"
	"banger/internal/tree"
)

// Record is what the host keeps of a workspace: where it comes from, and what went in. What the guest says of a
// workspace is only used to find its record.
type Record struct {
	ID      string    `json:"id"`
	VM      string    `json:"vm"` // the id of the VM that it was made for; forks have the same record
	Name    string    `json:"name"`
	Path    string    `json:"path"`   // in the guest
	Source  string    `json:"source"` // the working tree or directory of the host
	Plain   bool      `json:"plain,omitempty"`
	Created time.Time `json:"created"`

	Format string `json:"format"`         // of objects: sha1 or sha256
	Head   string `json:"head,omitempty"` // the commit that the guest's checkout began at
	// Later are the commits of the host that came after that, the newest last. A guest that was reset is at Head again.
	Later  []string `json:"later,omitempty"`
	Packs  []string `json:"packs,omitempty"`  // names of the packs that the file system in the guest has
	Branch string   `json:"branch,omitempty"` // in the guest
	CRLF   string   `json:"crlf,omitempty"`   // core.autocrlf

	Untracked bool `json:"untracked,omitempty"` // files that git does not track came too
	// Lower is the tree that the file system in the guest has, and Baseline the tree that the guest's changes are
	// compared with. Both have all files byte for byte, also those of submodules.
	Lower    string `json:"lower"`
	Baseline string `json:"baseline"`
	// Earlier are the baselines before. A fork, or a VM that has gone back to a snapshot, may still have one of them.
	Earlier []string `json:"earlier,omitempty"`

	Modules   map[string]string `json:"modules,omitempty"`   // commits of submodules by their paths
	Absent    []string          `json:"absent,omitempty"`    // tracked paths that a sparse checkout leaves out
	Converted []string          `json:"converted,omitempty"` // paths whose bytes differ from those that git keeps
}

// Knows reports whether a tree is or was the baseline.
func (r *Record) Knows(baseline string) bool {
	return baseline == r.Baseline || slices.Contains(r.Earlier, baseline)
}

// Use makes a tree the baseline, and keeps the one before among the earlier ones.
func (r *Record) Use(baseline string) {
	if baseline == r.Baseline {
		return
	}
	others := slices.DeleteFunc(slices.Clone(r.Earlier), func(b string) bool { return b == baseline })
	r.Earlier = append(others, r.Baseline)
	r.Baseline = baseline
}

// commits returns the commits of the host that the guest may have, in the order in which they came.
func (r *Record) commits() []string {
	if r.Head == "" {
		return r.Later
	}
	return append([]string{r.Head}, r.Later...)
}

// latest returns the newest commit of the host that came to the guest, or "".
func (r *Record) latest() string {
	if list := r.commits(); len(list) > 0 {
		return list[len(list)-1]
	}
	return ""
}

// Home is the directory with all records and stores of one user.
type Home struct{ Dir string }

var validID = regexp.MustCompile(`^[0-9a-f]{32}$`)

func (h Home) dir(id string) string { return filepath.Join(h.Dir, id) }

func (h Home) storeDir(id string) string { return filepath.Join(h.dir(id), "store.git") }

// Get returns the record with an id. A guest may say any id: one that this host has no record of is not found.
func (h Home) Get(id string) (*Record, error) {
	if !validID.MatchString(id) {
		return nil, unknownRecord()
	}
	data, err := os.ReadFile(filepath.Join(h.dir(id), "record.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, unknownRecord()
	}
	var r Record
	if err == nil {
		err = json.Unmarshal(data, &r)
	}
	if err != nil {
		return nil, banger.Errorf(banger.CodeDisk, "the record of a workspace in %s cannot be read: %w", h.dir(id),
			banger.Cause(err))
	}
	return &r, nil
}

func unknownRecord() error {
	return banger.Errorf(banger.CodeNotFound, "this host has no record of the workspace").
		WithHint("it was prepared by another user or on another host; prepare it again")
}

// put stores a record durably, after the store that it needs.
func (h Home) put(r *Record) error {
	dir, err := os.Open(h.dir(r.ID))
	if err == nil {
		err = unix.Syncfs(int(dir.Fd())) // git has written many files, of which it has synced none
		dir.Close()
	}
	if err != nil {
		return banger.Errorf(banger.CodeDisk, "storing workspace %s: %w", r.Name, banger.Cause(err))
	}
	if err := blob.WriteJSON(filepath.Join(h.dir(r.ID), "record.json"), r); err != nil {
		return banger.Errorf(banger.CodeDisk, "storing the record of workspace %s: %w", r.Name, banger.Cause(err))
	}
	return nil
}

// Lock keeps other processes of this user from changing a workspace, and waits for one that does. The caller calls
// unlock; the end of the process does so too.
func (h Home) Lock(ctx context.Context, id string) (unlock func(), err error) {
	if !validID.MatchString(id) {
		return nil, unknownRecord()
	}
	f, err := os.Open(h.dir(id))
	if err != nil {
		return nil, unknownRecord()
	}
	locked := make(chan error, 1)
	go func() { locked <- unix.Flock(int(f.Fd()), unix.LOCK_EX) }() // ends with the other process
	select {
	case err = <-locked:
	case <-ctx.Done():
		return nil, ctx.Err() // this process ends
	}
	if err != nil {
		f.Close()
		return nil, banger.Errorf(banger.CodeDisk, "locking the workspace: %w", err)
	}
	return func() { f.Close() }, nil
}

// All returns the records of this user that can be read.
func (h Home) All() (list []*Record) {
	dirs, _ := filepath.Glob(filepath.Join(h.Dir, "*", "record.json"))
	for _, path := range dirs {
		if r, err := h.Get(filepath.Base(filepath.Dir(path))); err == nil {
			list = append(list, r)
		}
	}
	return list
}

// Sweep removes what processes that were killed have left in the stores, such as quarantines, once it is a day old.
func (h Home) Sweep() {
	stores, _ := filepath.Glob(filepath.Join(h.Dir, "*", "store.git"))
	for _, dir := range stores {
		tree.Open(dir).Sweep()
	}
}

// Any reports whether this user has records.
func (h Home) Any() bool {
	list, _ := os.ReadDir(h.Dir)
	return len(list) > 0
}

// Remove removes a record and its store.
func (h Home) Remove(id string) error {
	if !validID.MatchString(id) {
		return unknownRecord()
	}
	if err := os.RemoveAll(h.dir(id)); err != nil {
		return banger.Errorf(banger.CodeDisk, "removing the record of a workspace: %w", banger.Cause(err))
	}
	return nil
}
