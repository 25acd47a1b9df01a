package spec

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"

	"banger"
	"banger/internal/host"
)

// Env joins env files and -e in docker's format. Later entries win. An entry that is only KEY takes the value
// of this process's variable, and is dropped if this process does not have the variable.
func Env(files, flags []string) ([]string, error) {
	var entries []string
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			return nil, banger.Errorf(banger.CodeInvalid, "cannot read the env file %s: %w", name, banger.Cause(err))
		}
		list, err := readEnv(f)
		f.Close()
		if err != nil {
			return nil, banger.Errorf(banger.CodeInvalid, "cannot read the env file %s: %w", name, banger.Cause(err))
		}
		entries = append(entries, list...)
	}
	var env []string
	for _, e := range flags {
		host.HideArgument(e)
	}
	for _, e := range append(entries, flags...) {
		if !strings.Contains(e, "=") {
			value, ok := os.LookupEnv(e)
			if !ok {
				continue
			}
			e += "=" + value
		}
		env = append(env, e)
	}
	return env, nil
}

// byteOrderMark is what some editors write before a text.
const byteOrderMark = "\xef\xbb\xbf"

// readEnv reads an env file as docker does: a # begins a comment, blanks before a name do not count, and a name has no
// blanks.
func readEnv(r io.Reader) (list []string, err error) {
	lines := bufio.NewScanner(r)
	for n := 1; lines.Scan(); n++ {
		line := lines.Text()
		if n == 1 {
			line = strings.TrimPrefix(line, byteOrderMark)
		}
		line = strings.TrimLeft(line, " \t")
		if line == "" || line[0] == '#' {
			continue
		}
		if name, _, _ := strings.Cut(line, "="); strings.ContainsAny(name, " \t") {
			return nil, fmt.Errorf("the name in line %d has a blank in it: %.80q", n, name)
		}
		list = append(list, line)
	}
	return list, lines.Err()
}
