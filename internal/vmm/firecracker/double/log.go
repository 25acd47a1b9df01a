package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

// logLevels are those that Firecracker has a word for, the most quiet one first.
var logLevels = []string{"Off", "Error", "Warning", "Info", "Debug", "Trace"}

// logf writes a line of level Info, which goes to standard output, where the guest's console
// is, until the API names a file. The real 1.12.1 was seen to do that, and is kept quiet by
// the argument --level, which all versions from 1.12.1 to 1.17.0-dev have (main.rs).
func (m *microVM) logf(thread, format string, args ...any) {
	if slices.Index(logLevels, m.level) < slices.Index(logLevels, "Info") {
		return
	}
	to := os.Stdout
	if m.log != nil {
		to = m.log
	}
	now := time.Now().UTC().Format("2006-01-02T15:04:05.000000000")
	fmt.Fprintf(to, "%s [%s:%s] %s\n", now, m.id, thread, fmt.Sprintf(format, args...))
}

// logRequest writes what a request says, all of it.
func (m *microVM) logRequest(method, path string, body []byte) {
	method = method[:1] + strings.ToLower(method[1:])
	if len(body) == 0 {
		m.logf("fc_api", "The API server received a %s request on %q.", method, path)
		return
	}
	m.logf("fc_api", "The API server received a %s request on %q with body %q.", method, path, body)
}
