package shim

import (
	"io"
	"os"
	"strings"

	"banger/internal/text"
	"banger/internal/untrusted"
)

// maxLastWords is the maximum number of bytes to read from a console log, maxLastLine the maximum length of a
// quotation.
const (
	maxLastWords = 64 << 10
	maxLastLine  = 300
)

// ConsoleEnd returns the present size of the console log in dir.
func ConsoleEnd(dir string) int64 {
	st, err := os.Lstat(ConsolePath(dir))
	if err != nil {
		return 0
	}
	return st.Size()
}

// LastWords returns the line after offset from in the console log in dir that explains why a boot failed: the
// kernel's panic message, otherwise the agent's last line, otherwise the last line.
func LastWords(dir string, from int64) string {
	f, err := untrusted.Open(ConsolePath(dir), os.O_RDONLY, 0)
	if err != nil {
		return ""
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil {
		return ""
	} else if st.Size() < from { // a new log has begun
		from = 0
	} else {
		from = max(from, st.Size()-maxLastWords)
	}
	said, _ := io.ReadAll(io.NewSectionReader(f, from, maxLastWords))
	var last, agent, kernel string
	for line := range strings.Lines(string(said)) {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		last = line
		if _, message, ok := strings.Cut(line, "Kernel panic - not syncing: "); ok && kernel == "" {
			kernel = "Kernel panic: " + message
		}
		if strings.HasPrefix(line, "banger-agent: ") {
			agent = line
		}
	}
	for _, line := range []string{kernel, agent, last} {
		if line != "" {
			return text.Limit(text.Line(line), maxLastLine)
		}
	}
	return ""
}
