package config

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"path/filepath"
	"slices"

	"banger"
	"banger/internal/blob"
	"banger/internal/private"
	"banger/internal/untrusted"
)

// Verdict is what a user has said about the content of a repository's file.
type Verdict string

// The verdicts. A file is obeyed only if it is allowed.
const (
	Allowed Verdict = "allowed"
	Denied  Verdict = "denied"
	Changed Verdict = "changed" // another content of the file was allowed
	New     Verdict = "new"
)

// Reviews remembers which contents of which files a user has allowed. Dir is private to the user, and is made when it
// is needed. The caller makes sure that one process writes at a time.
type Reviews struct{ Dir string }

// Bounds of a record.
const (
	maxSums   = 100     // contents of one file
	maxRecord = 8 << 20 // bytes
)

// review is the record of one file.
type review struct {
	Path    string   `json:"path"`
	Allowed []string `json:"allowed,omitempty"` // hashes of contents, the latest one last
	Denied  []string `json:"denied,omitempty"`
	Last    []byte   `json:"last,omitempty"` // the content that was allowed last
}

// State returns the verdict on a content of the file at path, which is absolute and leads through no link.
func (r Reviews) State(path string, raw []byte) Verdict {
	rec := r.read(path)
	switch sum := sumOf(raw); {
	case slices.Contains(rec.Allowed, sum):
		return Allowed
	case slices.Contains(rec.Denied, sum):
		return Denied
	case len(rec.Allowed) > 0:
		return Changed
	}
	return New
}

// Previous returns the content that was allowed last, or nil.
func (r Reviews) Previous(path string) []byte { return r.read(path).Last }

// Allow makes State say Allowed for this content, durably.
func (r Reviews) Allow(path string, raw []byte) error {
	return r.change(path, func(rec *review) {
		rec.Denied, rec.Allowed = without(rec.Denied, raw), append(without(rec.Allowed, raw), sumOf(raw))
		rec.Last = raw
	})
}

// Deny makes State say Denied for this content, durably.
func (r Reviews) Deny(path string, raw []byte) error {
	return r.change(path, func(rec *review) {
		rec.Allowed, rec.Denied = without(rec.Allowed, raw), append(without(rec.Denied, raw), sumOf(raw))
		if len(rec.Allowed) == 0 {
			rec.Last = nil
		}
	})
}

func (r Reviews) change(path string, f func(*review)) error {
	if err := private.Make(r.Dir, 0o700); err != nil {
		return err
	}
	rec := r.read(path)
	rec.Path = path
	f(&rec)
	rec.Allowed = rec.Allowed[max(0, len(rec.Allowed)-maxSums):]
	rec.Denied = rec.Denied[max(0, len(rec.Denied)-maxSums):]
	if err := blob.WriteJSON(r.file(path), rec); err != nil {
		return banger.Errorf(banger.CodeUnavailable, "cannot write down the review: %w", banger.Cause(err)).
			WithHint("see if there is room in %s", r.Dir)
	}
	return blob.Sync(filepath.Dir(r.Dir))
}

// read returns the record of a file. One that is absent, damaged or not private allows nothing.
func (r Reviews) read(path string) (rec review) {
	if private.Check(r.Dir) != nil {
		return review{}
	}
	raw, err := untrusted.ReadFile(r.file(path), maxRecord)
	if err != nil || json.Unmarshal(raw, &rec) != nil || rec.Path != path {
		return review{}
	}
	return rec
}

func (r Reviews) file(path string) string {
	return filepath.Join(r.Dir, sumOf([]byte(path))+".json")
}

func sumOf(raw []byte) string {
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:])
}

func without(sums []string, raw []byte) []string {
	sum := sumOf(raw)
	return slices.DeleteFunc(slices.Clone(sums), func(s string) bool { return s == sum })
}
