package shim

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestLastWordsOfABoot(t *testing.T) {
	const before = "banger-agent: of the boot before\n"
	const (
		panicked = "Kernel panic - not syncing: "
		noDisk   = "banger-agent: mounting the disk: no such device"
	)
	for said, want := range map[string]string{
		"":                                   "",
		"\n \n":                              "",
		"one\ntwo\r\n\r\n":                   "two",
		noDisk + "\n[ 1.0] reboot: Down\n":   noDisk,
		"banger-agent: a\nbanger-agent: b\n": "banger-agent: b",
		noDisk + "\n[ 0.1] " + panicked + "No init.\r\n---[ end " + panicked + "No init. ]---\n": "Kernel panic: No init.",
		"half a line":                          "half a line",
		"\x1b[2Jhidden\u202e\n":                `\x1b[2Jhidden\u202e`,
		strings.Repeat("x", 1<<20) + "\nlast":  "last",
		"first\n" + strings.Repeat("x", 1<<20): strings.Repeat("x", 40),
	} {
		dir := t.TempDir()
		if err := os.WriteFile(ConsolePath(dir), []byte(before), 0o600); err != nil {
			t.Fatal(err)
		}
		from := ConsoleEnd(dir)
		f, err := os.OpenFile(ConsolePath(dir), os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		f.WriteString(said)
		f.Close()
		got := LastWords(dir, from)
		if len(got) > maxLastLine+len("…") || !strings.HasPrefix(got, want) || want == "" && got != "" {
			t.Errorf("of %.60q it quotes %q", said, got)
		}
		if err := os.WriteFile(ConsolePath(dir), []byte("new"), 0o600); err != nil { // the log was rotated
			t.Fatal(err)
		}
		if got := LastWords(dir, from); got != "new" {
			t.Errorf("of a new log it quotes %q", got)
		}
	}
	dir := t.TempDir()
	if err := os.Symlink(filepath.Join(dir, "else"), ConsolePath(dir)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "else"), []byte("a secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := LastWords(dir, 0); got != "" {
		t.Errorf("through a link it quotes %q", got)
	}
}
