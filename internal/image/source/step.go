package source

import (
	"bytes"
	"regexp"
	"strconv"
	"strings"
)

// step is what mmdebstrap does at the moment.
type step struct {
	text      string
	count, of int // packages: of them, count are done; 0 if that is not known
}

// stepNames are mmdebstrap's words for its steps, and ours.
var stepNames = []struct{ theirs, ours string }{
	{"I: running apt-get update", "reading package lists"},
	{"I: downloading packages", "downloading packages"},
	{"I: extracting archives", "unpacking packages"},
	{"I: installing essential", "setting up packages, 1 of 2"},
	{"I: installing remaining", "setting up packages, 2 of 2"},
}

// newPackages is what apt says before it downloads and installs packages (apt-get(8) does not promise it). Without such
// a line the steps have no numbers.
var newPackages = regexp.MustCompile(`^\d+ upgraded, (\d{1,6}) newly installed`)

// steps reads mmdebstrap's output. It tells of the steps, and keeps the end for an error.
type steps struct {
	tell func(step)
	now  step
	all  int // packages that apt is about to install
	rest []byte
	end  []byte
}

// maxStepLine is the maximum number of bytes of a line of mmdebstrap that has no end so far.
const maxStepLine = 4 << 10

func (s *steps) Write(p []byte) (int, error) {
	s.rest = append(s.rest, p...)
	for {
		line, rest, whole := bytes.Cut(s.rest, []byte("\n"))
		if !whole {
			break
		}
		s.line(string(line))
		s.rest = rest
	}
	if len(s.rest) > maxStepLine {
		s.rest = nil
	}
	s.end = append(s.end, p...)
	if n := len(s.end); n > 8<<10 {
		s.end = append(s.end[:0], s.end[n-4<<10:]...)
	}
	return len(p), nil
}

func (s *steps) line(line string) {
	for _, name := range stepNames {
		if strings.HasPrefix(line, name.theirs) {
			s.now = step{text: name.ours}
			s.tell(s.now)
			return
		}
	}
	switch m := newPackages.FindStringSubmatch(line); {
	case m != nil:
		s.all, _ = strconv.Atoi(m[1])
		s.now.count = 0
	case s.all > 0 && s.counts(line):
		s.now.count, s.now.of = min(s.now.count+1, s.all), s.all
		s.tell(s.now)
	}
}

// counts reports whether a line says that one more package is done in the present step.
func (s *steps) counts(line string) bool {
	if s.now.text == "downloading packages" {
		return strings.HasPrefix(line, "Get:")
	}
	return strings.HasPrefix(line, "Setting up ")
}

// text returns the last line that reports an error, or else the last line.
func (s *steps) text() string {
	lines := strings.Split(strings.TrimSpace(string(s.end)), "\n")
	for i := len(lines) - 1; i >= 0; i-- {
		if strings.HasPrefix(lines[i], "E: ") {
			return lines[i]
		}
	}
	return lines[len(lines)-1]
}
