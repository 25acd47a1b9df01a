package shim

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"banger/internal/untrusted"
)

// MaxConsole is the size in bytes at which the console log is rotated. Two files are kept, so a guest that prints
// forever uses at most 8 MiB of the host.
const MaxConsole = 4 << 20

// maxDenialsFile is the maximum size in bytes of the file of denials.
const maxDenialsFile = 4 << 20

// ReadConsole writes the last tail lines of the console log in dir (all if tail is negative), whether or not a shim
// runs.
func ReadConsole(dir string, tail int, w io.Writer) error {
	_, err := w.Write(LastLines(ReadLog(ConsolePath(dir)), tail))
	return err
}

// ReadLog returns the content of both files of a log, the older one first. An absent file counts as empty.
func ReadLog(path string) []byte {
	var text []byte
	for _, p := range []string{path + ".1", path} {
		f, err := untrusted.Open(p, os.O_RDONLY, 0)
		if err != nil {
			continue
		}
		part, _ := io.ReadAll(io.LimitReader(f, MaxConsole))
		f.Close()
		text = append(text, part...)
	}
	return text
}

func LastLines(text []byte, n int) []byte {
	if n < 0 {
		return text
	}
	at := len(text)
	if bytes.HasSuffix(text, []byte("\n")) {
		at--
	}
	for ; n > 0; n-- {
		at = bytes.LastIndexByte(text[:max(at, 0)], '\n')
		if at < 0 {
			return text
		}
	}
	if at == len(text) || at == len(text)-1 {
		return nil
	}
	return text[at+1:]
}

// ReadDenials writes the last tail denials (all if tail is negative) of a VM in dir that has ended. There are none if
// its shim was killed.
func ReadDenials(dir string, tail int, w io.Writer) error {
	data, err := untrusted.ReadFile(filepath.Join(dir, DenialsFile), maxDenialsFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	lines := bytes.SplitAfter(data, []byte("\n"))
	lines = lines[:max(len(lines)-1, 0)]
	if tail >= 0 && len(lines) > tail {
		lines = lines[len(lines)-tail:]
	}
	_, err = w.Write(bytes.Join(lines, nil))
	return err
}
