// Package tooling reads which tools, and which versions of them, the files of a repository ask for: mise.toml,
// .tool-versions, go.mod, package.json and so on. A Plan says what mise is to install for them, where that is written,
// and which files contradict each other.
//
// The files that count are, from the first to the last: mise.toml and .mise.toml, .tool-versions, and then the files of
// the tools themselves. Among the latter, an exact version counts before a range. For ranges it chooses the newest
// prefix of versions that is in the range, as far as that is known without a network.
//
// A repository may come from anywhere, so the package believes nothing of it: it reads regular files of bounded size
// below the root only, and takes names and versions of safe characters. Whatever else it finds becomes a note. It must
// not know mise's own behaviour beyond names and versions, and it starts and downloads nothing.
package tooling

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"banger"
)

// Plan is what a repository asks for.
type Plan struct {
	Root      string     `json:"root"`
	Tools     []Tool     `json:"tools"`
	Conflicts []Conflict `json:"conflicts,omitempty"`
	Notes     []string   `json:"notes,omitempty"` // what was left out, and why
}

// Tool is one tool. Its source is the one that counts.
type Tool struct {
	Name    string `json:"name"`    // mise's name
	Version string `json:"version"` // what mise installs; "" if that cannot be known without a network
	Source
	Also []Source `json:"also,omitempty"` // other files that ask for it

	asked []want // what all files ask for
}

// Source is a place where a version is written.
type Source struct {
	Asked string `json:"asked"` // as it is written
	File  string `json:"file"`
	Line  int    `json:"line"`
}

func (s Source) String() string { return fmt.Sprintf("%s:%d", s.File, s.Line) }

// Conflict says that no version of a tool is what both sources ask for.
type Conflict struct {
	Tool   string `json:"tool"`
	Counts Source `json:"counts"`
	Other  Source `json:"other"`
}

func (c Conflict) String() string {
	return fmt.Sprintf("%s: %s asks for %s and %s for %s, so the version of %s counts",
		c.Tool, c.Counts, c.Counts.Asked, c.Other, c.Other.Asked, c.Counts.File)
}

// Root returns the root of the repository around dir, or dir itself if it is in none.
func Root(dir string) (string, error) {
	abs, err := filepath.Abs(dir)
	if err == nil {
		abs, err = filepath.EvalSymlinks(abs)
	}
	var info os.FileInfo
	if err == nil {
		info, err = os.Stat(abs)
	}
	if err != nil {
		return "", banger.Errorf(banger.CodeInvalid, "cannot read the directory %.200q: %w", dir, banger.Cause(err)).
			WithHint("give a directory that exists")
	}
	if !info.IsDir() {
		return "", banger.Errorf(banger.CodeInvalid, "%.200q is not a directory", dir).WithHint("give the directory it is in")
	}
	for at := abs; ; at = filepath.Dir(at) {
		if _, err := os.Lstat(filepath.Join(at, ".git")); err == nil {
			return at, nil
		}
		if at == filepath.Dir(at) {
			return abs, nil
		}
	}
}

// Read returns the plan of the repository around dir. Files that cannot be read or understood are notes in the plan.
func Read(dir string) (Plan, error) {
	root, err := Root(dir)
	if err != nil {
		return Plan{}, err
	}
	r, err := openReader(root)
	if err != nil {
		return Plan{}, err
	}
	defer r.root.Close()
	for rank, f := range files {
		text, ok := r.read(f.name)
		if !ok {
			continue
		}
		r.file, r.rank = f.name, rank
		f.parse(r, text)
	}
	p := Plan{Root: root, Tools: []Tool{}}
	byName := map[string][]want{}
	for _, w := range r.wants {
		byName[w.tool] = append(byName[w.tool], w)
	}
	for name, list := range byName {
		p.add(name, list)
	}
	slices.SortFunc(p.Tools, func(a, b Tool) int { return strings.Compare(a.Name, b.Name) })
	slices.SortStableFunc(p.Conflicts, func(a, b Conflict) int { return strings.Compare(a.Tool, b.Tool) })
	for _, t := range p.Tools {
		if t.Version == "" {
			r.notes = append(r.notes, fmt.Sprintf("%s: %s asks for %s, which does not say one version: pin one in mise.toml",
				t.Name, t.Source, t.Asked))
		}
	}
	p.Notes = r.notes
	return p, nil
}

// add adds a tool to the plan. The wants are in the order of the files.
func (p *Plan) add(name string, list []want) {
	slices.SortStableFunc(list, func(a, b want) int {
		return cmp.Or(cmp.Compare(min(a.rank, firstOwn), min(b.rank, firstOwn)), cmp.Compare(a.isRange, b.isRange))
	})
	first := list[0]
	t := Tool{Name: name, Version: first.version, Source: first.Source, asked: list}
	for _, other := range list[1:] {
		t.Also = append(t.Also, other.Source)
		if !agree(first, other) {
			p.Conflicts = append(p.Conflicts, Conflict{name, first.Source, other.Source})
		}
	}
	p.Tools = append(p.Tools, t)
}

// Check returns an error unless a tool of that name can be installed in that version, which is exact, the beginning of
// one, or a word such as latest.
func Check(name, version string) error {
	_, err := exactly(name, version)
	return err
}

// Pin makes a version of a tool count before all files. Check must accept it. What the files ask for stays in Also, and
// is a conflict if it contradicts.
func (p *Plan) Pin(name string, s Source) {
	w, err := exactly(name, s.Asked)
	if err != nil {
		return
	}
	t := Tool{Name: w.tool, Version: w.version, Source: s}
	p.Conflicts = slices.DeleteFunc(p.Conflicts, func(c Conflict) bool { return c.Tool == w.tool })
	p.Notes = slices.DeleteFunc(p.Notes, func(note string) bool { return strings.HasPrefix(note, w.tool+": ") })
	i, found := slices.BinarySearchFunc(p.Tools, w.tool, func(t Tool, name string) int {
		return strings.Compare(t.Name, name)
	})
	if found {
		old := p.Tools[i]
		t.Also = append([]Source{old.Source}, old.Also...)
		for _, other := range old.asked {
			if !agree(w, other) {
				p.Conflicts = append(p.Conflicts, Conflict{w.tool, s, other.Source})
			}
		}
		t.asked = old.asked
		p.Tools[i] = t
		return
	}
	p.Tools = slices.Insert(p.Tools, i, t)
}

// Config returns the plan as a mise.toml, without the tools whose version is not known.
func (p Plan) Config() []byte {
	var b strings.Builder
	b.WriteString("[tools]\n")
	for _, t := range p.Tools {
		if t.Version != "" {
			fmt.Fprintf(&b, "%q = %q\n", t.Name, t.Version)
		}
	}
	return []byte(b.String())
}

// Key returns a text that is equal for plans which install the same.
func (p Plan) Key() string {
	sum := sha256.Sum256(p.Config())
	return hex.EncodeToString(sum[:])
}
