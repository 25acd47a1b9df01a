package spec

import (
	"bufio"
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
			return nil, banger.Errorf(banger.CodeInvalid, "cannot read the env file: %w", err)
		}
		sc := bufio.NewScanner(f)
		for sc.Scan() {
			if line := strings.TrimLeft(sc.Text(), " \t"); line != "" && line[0] != '#' {
				entries = append(entries, line)
			}
		}
		f.Close()
		if err := sc.Err(); err != nil {
			return nil, banger.Errorf(banger.CodeInvalid, "cannot read the env file %s: %w", name, err)
		}
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
