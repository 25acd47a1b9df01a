package shim

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"banger"
	"banger/internal/text"
	"banger/internal/untrusted"
)

// MaxConsole is the size in bytes at which the console log is rotated. Two files are kept, so a guest that prints
// forever uses at most 8 MiB of the host.
const MaxConsole = 4 << 20

// maxDecisionsFile is the maximum size in bytes of the file of decisions.
const maxDecisionsFile = 4 << 20

// ReadConsole writes the last tail lines of the console log in dir (all if tail is negative), whether or not a shim
// runs.
func ReadConsole(dir string, tail int, w io.Writer) error {
	_, err := w.Write(text.LastLines(ReadLog(ConsolePath(dir)), tail))
	return err
}

// ReadLog returns the content of both files of a log, the older one first. An absent file counts as empty.
func ReadLog(path string) []byte {
	var log []byte
	for _, p := range []string{path + ".1", path} {
		f, err := untrusted.Open(p, os.O_RDONLY, 0)
		if err != nil {
			continue
		}
		part, _ := io.ReadAll(io.LimitReader(f, MaxConsole))
		f.Close()
		log = append(log, part...)
	}
	return log
}

// ReadDecisions writes the last tail refusals (all if tail is negative) of a VM in dir that has ended, and with all
// also the flows that were allowed. There are none if its shim was killed.
func ReadDecisions(dir string, all bool, tail int, w io.Writer) error {
	data, err := untrusted.ReadFile(filepath.Join(dir, DecisionsFile), maxDecisionsFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	var wanted []byte
	for line := range bytes.Lines(data) {
		var d banger.Decision
		if err := json.Unmarshal(line, &d); err == nil && (all || !d.Allowed) { // no line that was cut
			wanted = append(wanted, line...)
		}
	}
	_, err = w.Write(text.LastLines(wanted, tail))
	return err
}
