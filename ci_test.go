package banger_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// scriptsElsewhere copies the scripts that CI runs to a directory outside any repository.
func scriptsElsewhere(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "scripts"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"scripts/test-slow", "scripts/part"} {
		text, err := os.ReadFile(name)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), text, 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// run runs a program in dir and returns its output and its exit code.
func run(t *testing.T, dir string, env []string, args ...string) (string, int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
	cmd.Dir = dir
	for _, e := range os.Environ() { // set by a CI that runs this test
		if !strings.HasPrefix(e, "CI_") && !strings.HasPrefix(e, "SHARD=") && !strings.HasPrefix(e, "GIT_") {
			cmd.Env = append(cmd.Env, e)
		}
	}
	cmd.Env = append(append(cmd.Env, "GIT_CEILING_DIRECTORIES="+filepath.Dir(dir)), env...)
	out, err := cmd.CombinedOutput()
	if err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// TestWhichShardIsRun runs scripts/test-slow in a CI that has no time left for a shard. The script then names the
// shard that it would run, and runs none.
func TestWhichShardIsRun(t *testing.T) {
	dir := scriptsElsewhere(t)
	late := fmt.Sprint("CI_BEGAN=", time.Now().Add(-63*time.Minute).Unix())
	for _, c := range []struct {
		shard, want string
		code        int
	}{
		{"", "shard 1 of 8, because no commit is known here; all: make test-slow SHARD=all\n", 0},
		{"3", "shard 3 of 8, as SHARD says; all: make test-slow SHARD=all\n", 0},
		{"all", "all 8 shards\n", 0},
		{"0", "SHARD is 0, and may be 1 to 8 or all\n", 2},
		{"9", "SHARD is 9, and may be 1 to 8 or all\n", 2},
		{"one", "SHARD is one, and may be 1 to 8 or all\n", 2},
	} {
		out, code := run(t, dir, []string{late, "SHARD=" + c.shard}, "scripts/test-slow")
		if first, _, _ := strings.Cut(out, "\n"); first+"\n" != "test-slow: "+c.want || code != c.code {
			t.Errorf("SHARD=%s: exit code %d, %q", c.shard, code, out)
		}
		if skips := strings.Contains(out, "SKIPPED, because CI began 63 minutes ago"); skips != (c.code == 0) {
			t.Errorf("SHARD=%s does not say whether it runs: %q", c.shard, out)
		}
	}
	commit := func() string {
		for _, args := range []string{"init -q", "-c user.name=a -c user.email=a@b commit -q --allow-empty -m x"} {
			if out, code := run(t, dir, nil, append([]string{"git"}, strings.Fields(args)...)...); code != 0 {
				t.Fatal(out)
			}
		}
		out, _ := run(t, dir, nil, "git", "rev-parse", "HEAD")
		return strings.TrimSpace(out)
	}
	hash := commit()
	n, err := strconv.ParseUint(hash[:8], 16, 64)
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("test-slow: shard %d of 8, by commit %s;", n%8+1, hash[:7])
	if out, code := run(t, dir, []string{late}, "scripts/test-slow"); !strings.HasPrefix(out, want) || code != 0 {
		t.Errorf("exit code %d, %q, want %q", code, out, want)
	}
}

// TestEveryFuzzTargetOfTheShardsExists also fails when a shard is not defined, or when two shards have the same
// target.
func TestEveryFuzzTargetOfTheShardsExists(t *testing.T) {
	text, err := os.ReadFile("scripts/test-slow")
	if err != nil {
		t.Fatal(err)
	}
	for shard := 1; shard <= 8; shard++ {
		if !strings.Contains(string(text), fmt.Sprintf("\nshard%d() {\n", shard)) {
			t.Errorf("shard %d is not defined", shard)
		}
	}
	seen := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^ +fuzz (\S+) (\w+) `).FindAllStringSubmatch(string(text), -1) {
		files, err := filepath.Glob(filepath.Join("internal", m[1], "*_test.go"))
		if err != nil {
			t.Fatal(err)
		}
		found := false
		for _, f := range files {
			code, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			found = found || strings.Contains(string(code), "func "+m[2]+"(")
		}
		if !found || seen[m[2]] {
			t.Errorf("%s of %s is not there, or twice in the shards", m[2], m[1])
		}
		seen[m[2]] = true
	}
	if len(seen) == 0 {
		t.Error("no shard fuzzes anything")
	}
}

// TestThePartsOfCIAreCounted runs several parts, one of which fails. The failure must end the script, and the table
// must name the part.
func TestThePartsOfCIAreCounted(t *testing.T) {
	dir := scriptsElsewhere(t)
	script := `set -eu
. scripts/part
minutes 204
CI_BEGAN=$EPOCHSECONDS CI_PARTS=$PWD/parts
trap parts_table EXIT
part first true
part outer bash -c '. scripts/part; part inner true'
part "two words" sh -c 'exit 3'
part never true
`
	out, code := run(t, dir, nil, "bash", "-c", script)
	want := `3.4
ci: first N min
ci: inner N min
ci: outer N min
ci: two words N min, failed with exit code 3
ci: minutes of each part
ci: first                               N
ci: outer                               N
ci: two words                           N  failed with exit code 3
ci: all of it                           N
`
	figures := regexp.MustCompile(`\b[0-9]+\.[0-9]( min|  failed|$)`)
	said, table, _ := strings.Cut(out, "\n")
	lines := strings.Split(table, "\n")
	for i := range lines {
		lines[i] = figures.ReplaceAllString(lines[i], "N$1")
	}
	if got := said + "\n" + strings.Join(lines, "\n"); got != want || code != 3 {
		t.Errorf("exit code %d:\n%s", code, out)
	}
	out, code = run(t, dir, nil, "bash", "-c", "set -eu\n. scripts/part\nf() { true; }\npart f f\necho on")
	if code != 2 || out != "part f: f is a function, not a program\n" {
		t.Errorf("a function as a part: exit code %d, %q", code, out)
	}
}
