package imagetest

import (
	"fmt"
	"os/exec"
	"path"
	"regexp"
	"sort"
	"strings"
	"testing"
)

// Fsck checks an ext4 file with e2fsck.
func Fsck(t *testing.T, path string) {
	t.Helper()
	out, err := exec.Command("/sbin/e2fsck", "-fn", path).CombinedOutput()
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if err != nil || len(lines) != 7 { // version, five passes, the summary
		t.Fatalf("e2fsck: %v\n%.3000s", err, out)
	}
}

// Debugfs runs commands on an ext4 file and returns what each of them printed.
func Debugfs(t *testing.T, path string, commands []string) []string {
	t.Helper()
	cmd := exec.Command("/sbin/debugfs", "-f", "-", path)
	cmd.Stdin = strings.NewReader(strings.Join(commands, "\n") + "\n")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("debugfs: %v", err)
	}
	var answers []string
	rest := string(out)
	for i, c := range commands {
		_, after, ok := strings.Cut(rest, "debugfs: "+c+"\n")
		if !ok {
			t.Fatalf("debugfs did not echo %q in %.500q", c, rest)
		}
		rest = after
		answer := rest
		if i+1 < len(commands) {
			answer, _, _ = strings.Cut(rest, "debugfs: "+commands[i+1]+"\n")
		}
		answers = append(answers, answer)
	}
	return answers
}

var (
	statRE = regexp.MustCompile(`(?s)Inode: (\d+)\s+Type: (\S+( \S+)?)\s+Mode:\s+(\d+)` +
		`.*User:\s+(-?\d+)\s+Group:\s+(-?\d+).* mtime: 0x([0-9a-f]+):([0-9a-f]+)`)
	lsRE    = regexp.MustCompile(`(?m)^/\d+/\d+/-?\d+/-?\d+/([^/]+)/`)
	fastRE  = regexp.MustCompile(`Fast link dest: "(.*)"`)
	devRE   = regexp.MustCompile(`Device major/minor number: (\S+)`)
	xattrRE = regexp.MustCompile(`(?m)^  ((?:user|security|trusted|system)\.\S+ \(\d+\).*)$`)
)

// Listing describes every file of an ext4 image, sorted, one line each: path, type, mode, owner,
// and what is unusual.
func Listing(t *testing.T, image string) string {
	t.Helper()
	var lines []string
	first := map[string]string{} // inode -> path
	for level := []string{"/"}; len(level) > 0; {
		var commands, below []string
		for _, p := range level {
			commands = append(commands, fmt.Sprintf("stat %q", p), fmt.Sprintf("ls -p %q", p), fmt.Sprintf("cat %q", p))
		}
		answers := Debugfs(t, image, commands)
		for i, p := range level {
			stat, ls, content := answers[3*i], answers[3*i+1], answers[3*i+2]
			m := statRE.FindStringSubmatch(stat)
			if m == nil {
				t.Fatalf("debugfs says of %q: %s", p, stat)
			}
			line := fmt.Sprintf("%s %s %s %s:%s", p, strings.ReplaceAll(m[2], " ", "-"), m[4], m[5], m[6])
			if m[7] != "6553f100" || m[8] != "00000000" {
				line += " mtime=" + m[7] + ":" + m[8]
			}
			switch m[2] {
			case "directory":
				for _, child := range lsRE.FindAllStringSubmatch(ls, -1) {
					if child[1] != "." && child[1] != ".." && !(p == "/" && child[1] == "lost+found") {
						below = append(below, path.Join(p, child[1]))
					}
				}
			case "regular":
				line += fmt.Sprintf(" %q", content)
			case "symlink":
				if f := fastRE.FindStringSubmatch(stat); f != nil {
					line += " -> " + f[1]
				}
			}
			if d := devRE.FindStringSubmatch(stat); d != nil {
				line += " dev=" + d[1]
			}
			for _, x := range xattrRE.FindAllStringSubmatch(stat, -1) {
				line += " [" + x[1] + "]"
			}
			if same := first[m[1]]; same != "" && m[2] != "directory" {
				line = p + " = " + same
			} else {
				first[m[1]] = p
			}
			lines = append(lines, line)
		}
		sort.Strings(below)
		level = below
	}
	sort.Strings(lines)
	return strings.Join(lines, "\n") + "\n"
}

// WantListing compares listings. want is indented like the source.
func WantListing(t *testing.T, got, want string) {
	t.Helper()
	want = strings.TrimPrefix(strings.ReplaceAll(want, "\n\t\t", "\n"), "\n")
	if got != strings.TrimRight(want, "\t") {
		t.Errorf("the image holds\n%s\nbut should hold\n%s", got, want)
	}
}
