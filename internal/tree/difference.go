package tree

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Difference is one file that differs between two trees.
type Difference struct {
	Status         string // A, D, M, T, or R and C with the similarity in percent
	Path           string
	From           string // the earlier path of R and C
	Before, After  Entry  // without an object on a side that does not have the file
	Added, Removed int    // lines
	Binary         bool   // it has no lines
}

// Differences returns how two trees differ, with renamed files.
func (s Store) Differences(ctx context.Context, before, after string) (list []Difference, err error) {
	fields, err := s.Git.Fields(ctx, "", "diff", "--raw", "--numstat", "--no-abbrev", "-z", "-M", "--no-ext-diff",
		"--no-textconv", before, after)
	if err != nil {
		return nil, err
	}
	for len(fields) > 0 && strings.HasPrefix(fields[0], ":") {
		d, rest, err := rawDifference(fields)
		if err != nil {
			return nil, err
		}
		list, fields = append(list, d), rest
	}
	for i := range list { // the lines come in the same order
		if len(fields) == 0 {
			return nil, fmt.Errorf("git counts the lines of %d of %d files", i, len(list))
		}
		words := strings.SplitN(fields[0], "\t", 3)
		if len(words) != 3 {
			return nil, fmt.Errorf("git counts lines as %q", fields[0])
		}
		d := &list[i]
		var aerr, rerr error
		d.Added, aerr = strconv.Atoi(words[0])
		d.Removed, rerr = strconv.Atoi(words[1])
		d.Binary = aerr != nil || rerr != nil // "-"
		fields = fields[1:]
		if words[2] == "" { // both paths of a renamed file follow
			fields = fields[min(2, len(fields)):]
		}
	}
	return list, nil
}

// rawDifference reads one change of git diff --raw -z, and returns the fields behind it.
func rawDifference(fields []string) (d Difference, rest []string, err error) {
	words := strings.Fields(fields[0][1:]) // modes, objects, status
	if len(words) != 5 || len(fields) < 2 {
		return d, nil, fmt.Errorf("git lists a change as %q", fields[0])
	}
	d.Before, d.After = side(words[0], words[2]), side(words[1], words[3])
	d.Status, d.Path = words[4], fields[1]
	if !strings.ContainsAny(d.Status[:1], "RC") {
		return d, fields[2:], nil
	}
	if len(fields) < 3 {
		return d, nil, fmt.Errorf("git lists a change as %q", fields[0])
	}
	d.From, d.Path = fields[1], fields[2]
	return d, fields[3:], nil
}

func side(mode, oid string) Entry {
	if strings.Trim(mode, "0") == "" {
		return Entry{}
	}
	return Entry{Mode: mode, OID: oid}
}

// Content is what a file has.
type Content struct {
	Size int64
	Text bool   // UTF-8 without a zero byte; also the target of a symlink that is
	Data []byte // nil if there are more than the caller takes
}

// Content returns what a file has, up to a number of bytes.
func (s Store) Content(ctx context.Context, e Entry, most int64) (got Content, err error) {
	said, err := s.Git.Output(ctx, "cat-file", "-s", e.OID)
	if err != nil {
		return got, err
	}
	if got.Size, err = strconv.ParseInt(said, 10, 64); err != nil {
		return got, fmt.Errorf("git says of a size: %q", said)
	}
	if got.Size > most {
		return got, nil
	}
	if got.Data, err = s.Git.Bytes(ctx, "", "cat-file", "blob", e.OID); err != nil {
		return got, err
	}
	got.Text = utf8.Valid(got.Data) && bytes.IndexByte(got.Data, 0) < 0
	return got, nil
}
