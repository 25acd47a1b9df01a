package render

import (
	"bytes"
	"strings"
	"testing"

	"banger"
	"banger/internal/text"
)

// evil is text that must not reach a terminal unchanged.
const evil = "a\x1b]0;x\a\x1b[2J\u009b31m\u202e\u2066\u200b\ufeff\u2028\U000e0041\x7f\r\x00z"

// TestProgressIsPrintable shows an event on a terminal.
func TestProgressIsPrintable(t *testing.T) {
	var out bytes.Buffer
	p := &Progress{w: &out, live: true}
	p.Emit(banger.Event{Stage: evil, Text: strings.Repeat(evil, 100)})
	p.Close()
	line := strings.TrimSuffix(strings.TrimPrefix(out.String(), "\r\x1b[K"), "\n")
	if strings.ContainsFunc(line, func(r rune) bool { return !text.Printable(r) }) || len(line) > 400 {
		t.Errorf("it is %q", line)
	}
}
