package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

// logLevels are Firecracker's log levels, from the quietest on.
var logLevels = []string{"Off", "Error", "Warning", "Info", "Debug", "Trace"}

// logf writes a line of level Info. Until the API names a file, the line goes to standard output,
// which is also the guest's console. The real 1.12.1 was seen to do that. The argument --level
// silences it, which all versions from 1.12.1 to 1.17.0-dev have (main.rs).
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

// logRequest logs a whole request.
func (m *microVM) logRequest(method, path string, body []byte) {
	method = method[:1] + strings.ToLower(method[1:])
	if len(body) == 0 {
		m.logf("fc_api", "The API server received a %s request on %q.", method, path)
		return
	}
	m.logf("fc_api", "The API server received a %s request on %q with body %q.", method, path, body)
}
