package tooling

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"regexp"
	"strings"
	"syscall"

	"banger"
)

// Bounds of what is read from one repository.
const (
	maxFile  = 1 << 20 // bytes
	maxTools = 200
	maxNotes = 50
	maxWord  = 100 // characters of a name or a version
)

// files lists what is read, in the order in which it counts.
var files = []struct {
	name  string
	parse func(*reader, []byte)
}{
	{"mise.toml", readMise},
	{".mise.toml", readMise},
	{".tool-versions", readToolVersions},
	{".go-version", versionFile("go")},
	{"go.mod", readGoMod},
	{".node-version", versionFile("node")},
	{".nvmrc", versionFile("node")},
	{"package.json", readPackageJSON},
	{".python-version", versionFile("python")},
	{"pyproject.toml", readPyproject},
	{"rust-toolchain", readRustToolchain},
	{"rust-toolchain.toml", readRustToolchain},
	{".ruby-version", versionFile("ruby")},
	{".java-version", versionFile("java")},
	{"global.json", readGlobalJSON},
	{".terraform-version", versionFile("terraform")},
}

// firstOwn is where the files of the tools themselves begin in files.
const firstOwn = 3

// reader gathers what the files of a repository ask for.
type reader struct {
	root  *os.Root
	file  string // the file that is being read
	rank  int    // its place in files
	wants []want
	notes []string
}

func openReader(dir string) (*reader, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, banger.Errorf(banger.CodeInvalid, "cannot read the directory %.200q: %w", dir, banger.Cause(err)).
			WithHint("give a directory that you may read")
	}
	return &reader{root: root}, nil
}

// read returns the text of a file below the root. A file that is not there is no note.
func (r *reader) read(name string) ([]byte, bool) {
	r.file = name
	f, err := r.root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a pipe must not make it wait
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false
	}
	if err != nil {
		r.note(0, "it cannot be opened below the repository's root")
		return nil, false
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		r.note(0, "it is not a regular file")
		return nil, false
	}
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	switch {
	case err != nil:
		r.note(0, "it cannot be read")
	case len(text) > maxFile:
		r.note(0, "it has more than %s", banger.FormatSize(maxFile))
	default:
		return bytes.TrimPrefix(text, []byte("\xef\xbb\xbf")), true
	}
	return nil, false
}

// note says that something of the file was left out. Line 0 means the whole file.
func (r *reader) note(line int, format string, args ...any) {
	if len(r.notes) >= maxNotes {
		return
	}
	where := r.file
	if line > 0 {
		where = fmt.Sprintf("%s:%d", r.file, line)
	}
	r.notes = append(r.notes, where+" was left out: "+fmt.Sprintf(format, args...))
}

// What names, versions and ranges may consist of.
var (
	safeName    = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:/@+-]*$`)
	safeVersion = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:/@+-]*$`)
	safeRange   = regexp.MustCompile(`^[A-Za-z0-9 .,<>=!~^|*+_-]+$`)
)

// exact adds a tool with a version, the beginning of one, or a word such as latest.
func (r *reader) exact(tool, asked string, line int) {
	w, err := exactly(tool, asked)
	if err != nil {
		r.note(line, "%v", err)
		return
	}
	w.File, w.Line, w.rank = r.file, line, r.rank
	r.add(w)
}

// exactly returns what asks for a version, the beginning of one, or a word such as latest.
func exactly(tool, asked string) (want, error) {
	w := want{tool: misesName(tool), version: asked, Source: Source{Asked: asked}}
	if version, ok := words[w.tool][asked]; ok {
		w.version = version
	}
	w.version = wildcard.ReplaceAllString(trimName(w.tool, w.version), "")
	switch {
	case len(w.tool) > maxWord || !safeName.MatchString(w.tool):
		return w, fmt.Errorf("%.40q is not a name of a tool", tool)
	case len(w.version) > maxWord || !safeVersion.MatchString(w.version):
		return w, fmt.Errorf("%.40q is not a version of %s", asked, w.tool)
	case w.version == "system":
		return w, fmt.Errorf("%s is to be the system's, so there is nothing to install", w.tool)
	case strings.HasPrefix(w.version, "path:"):
		return w, fmt.Errorf("%s is in a directory of the host", w.tool)
	}
	if version, ok := parts(w.version); ok {
		w.version, w.spans = format(version), []span{begins(version)}
	}
	return w, nil
}

// add adds a want, up to a bound.
func (r *reader) add(w want) {
	if len(r.wants) == maxTools {
		r.note(w.Line, "there are more than %d versions", maxTools)
	}
	if len(r.wants) <= maxTools {
		r.wants = append(r.wants, w)
	}
}

// within adds a tool with a range of versions.
func (r *reader) within(tool, asked string, line int, parse func(string) []span) {
	if asked = strings.TrimSpace(asked); asked == "" {
		return
	}
	if len(asked) > maxWord || !safeRange.MatchString(asked) {
		r.note(line, "%.40q is not a range of versions of %s", asked, tool)
		return
	}
	w := want{tool: tool, Source: Source{asked, r.file, line}, rank: r.rank, isRange: 1, spans: parse(asked)}
	if version, ok := parts(asked); ok && tool == "node" {
		w.isRange, w.version = 0, format(version) // 20 and 20.1 are what mise calls a version too
	} else {
		open := "latest"
		if tool == "node" {
			open = newestNode(w.spans)
		}
		w.version = newest(w.spans, open)
	}
	r.add(w)
}

// atLeast adds a tool with its lowest version, which is also the one to install.
func (r *reader) atLeast(tool, asked string, line int) {
	version, ok := parts(asked)
	w := want{tool: tool, version: asked, Source: Source{asked, r.file, line}, rank: r.rank, isRange: 1}
	if ok {
		w.spans = []span{{low: version}}
	} else if len(asked) > maxWord || !safeVersion.MatchString(asked) {
		r.note(line, "%.40q is not a version of %s", asked, tool)
		return
	}
	r.add(w)
}
