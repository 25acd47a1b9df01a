package ignore

import (
	"bytes"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// check fails the test at an error.
func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestEachKindOfRule has the examples of gitignore(5), and what is easily read in another way.
func TestEachKindOfRule(t *testing.T) {
	for _, tt := range []struct{ rules, path, want string }{ // a path of a directory has a slash at its end
		{"", "a", "kept"},
		{"# a", "# a", "kept"},
		{`\#a`, "#a", "ignored"},
		{"a", "b/a", "ignored"},
		{"/a", "b/a", "kept"},
		{"/a", "a", "ignored"},
		{"b/a", "c/b/a", "kept"},
		{"b/a", "b/a", "ignored"},
		{"a/", "a", "kept"},
		{"a/", "b/a/", "ignored"},
		{"a\n!a", "a", "kept"},
		{"!a\na", "a", "ignored"},
		{`\!a`, "!a", "ignored"},
		{"*.o", "b/x.o", "ignored"},
		{"b/*.o", "b/c/x.o", "kept"},
		{"**/a", "a", "ignored"},
		{"**/a/b", "x/y/a/b", "ignored"},
		{"a/**", "a/x/y", "ignored"},
		{"a/**", "a/", "kept"},
		{"a/**/b", "a/b", "ignored"},
		{"a/**/b", "a/x/y/b", "ignored"},
		{"a**b", "axxb", "ignored"},
		{"x/a**b", "x/a/b", "kept"},
		{"a?", "ab", "ignored"},
		{"[ab]", "b", "ignored"},
		{"[!ab]", "b", "kept"},
		{"[^ab]", "c", "ignored"},
		{"[a-c]", "b", "ignored"},
		{"[]]", "]", "ignored"},
		{`[\]]`, "]", "ignored"},
		{"[a", "[a", "kept"},
		{"[[:digit:]]", "7", "ignored"},
		{"[[:nonsense:]]", "n", "kept"},
		{"[[:space:]]", "\v", "kept"}, // as git has it
		{"a  ", "a", "ignored"},
		{`a\ `, "a ", "ignored"},
		{`a\`, "a", "kept"},
		{"a\r\nb", "a", "ignored"},
		{"\xef\xbb\xbfa", "a", "ignored"},
		{"a\n\xef\xbb\xbfb", "b", "kept"},
		{"\xff*", "\xff\xfe", "ignored"},
		{"A", "a", "kept"},
		{"/", "a", "kept"},
		{"\r\n", "\r", "kept"},
	} {
		s := (&Stack{}).Push(Parse([]byte(tt.rules), ""))
		path, isDir := strings.CutSuffix(tt.path, "/")
		if got := map[bool]string{true: "ignored", false: "kept"}[s.Match(path, isDir)]; got != tt.want {
			t.Errorf("with %q, %q is %s", tt.rules, tt.path, got)
		}
	}
}

// TestRulesOfDirectoriesTakePrecedence checks the order of the rules of several directories.
func TestRulesOfDirectoriesTakePrecedence(t *testing.T) {
	top := (&Stack{}).Push(Parse([]byte("*.o"), "")).Push(nil).Push(Parse(nil, ""))
	below := top.Push(Parse([]byte("!x.o\n/y"), "dir"))
	for path, want := range map[string]bool{"dir/x.o": false, "dir/z.o": true, "dir/y": true, "dir/sub/y": false} {
		if below.Match(path, false) != want {
			t.Errorf("%s is ignored: %v", path, !want)
		}
	}
	if !top.Match("x.o", false) || !top.Match("dir/x.o", false) {
		t.Error("the rules of a directory hold above it")
	}
}

// TestHostileRulesEnd matches patterns that make a simple matcher work for ever.
func TestHostileRulesEnd(t *testing.T) {
	began := time.Now()
	for _, pattern := range []string{strings.Repeat("a*", 100) + "b", strings.Repeat("**/", 1000) + "b",
		strings.Repeat("**/a*", 100) + "b", "x/" + strings.Repeat("*a", 500), strings.Repeat("[", 4000),
		strings.Repeat("?*", 200) + "/" + strings.Repeat("**/?*", 100) + "c"} {
		s := (&Stack{}).Push(Parse([]byte(pattern), ""))
		s.Match(strings.Repeat("a", 250), false)
		s.Match(strings.Repeat("a/", 500)+"a", false)
		s.Match("x/"+strings.Repeat("a", 250), false)
	}
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("it took %s", took)
	}
}

// nasty makes random names and rules that look alike.
type nasty struct{ *rand.Rand }

func (n nasty) pick(list []string) string { return list[n.IntN(len(list))] }

func (n nasty) name() string {
	var b strings.Builder
	for range 1 + n.IntN(3) {
		b.WriteString(n.pick([]string{"a", "a", "b", "b", "c", ".", "-", " ", "!", "#", "[", "]", "*", "?", `\`, ":",
			"\n", "\r", "\xff", "é", "A", "1", "^", "\t", "\v"}))
	}
	name := b.String()
	if name == "." || name == ".." {
		return "a"
	}
	return name
}

// rule returns a rule, which is often one for a path of the tree.
func (n nasty) rule(paths []string) string {
	var b strings.Builder
	switch n.IntN(4) {
	case 0: // of a path
		if len(paths) > 0 {
			words := strings.Split(n.pick(paths), "/")
			for i := range words {
				if n.IntN(3) == 0 {
					words[i] = n.pick([]string{"*", "**", "?", "a*", "*b", "[a-c]*", "[!x]*", `\` + words[i], "***", "*?"})
				}
			}
			b.WriteString(n.pick([]string{"", "", "/", "!", "!/", "**/"}) + strings.Join(words[n.IntN(len(words)):], "/"))
		}
	default:
		b.WriteString(n.pick([]string{"", "", "", "", "/", "!", "#"}))
		for range 1 + n.IntN(5) {
			b.WriteString(n.pick([]string{"a", "a", "b", "c", "/", "/", "*", "*", "**", "?", "[ab]", "[!a]", "[a-c]",
				"[^b-", "]", "[", "[[:alpha:]]", "[[:punct:]-z]", "[[:space:]]", "[[:x:]]", "[[:a", "[]-a]", `[\]a]`,
				`[a\-c]`, "[--b]", `\`, `\*`, " ", `\ `, "!", "#", ".", "-", ":", "\r", "\t", "\xff", "é", "\x00", "**/",
				"/**", "/**/", "[a/b]", "[[:print:][:cntrl:]]"}))
		}
	}
	return b.String() + n.pick([]string{"", "", "", "/", " ", "  ", `\ `, "\r", "/ "})
}

func (n nasty) rules(paths []string) []byte {
	var b bytes.Buffer
	if n.IntN(8) == 0 {
		b.WriteString("\xef\xbb\xbf")
	}
	for range n.IntN(6) {
		b.WriteString(n.rule(paths) + "\n")
	}
	if n.IntN(2) == 0 {
		b.WriteString(n.rule(paths))
	}
	return b.Bytes()
}

// tree makes a random tree in an empty directory, and returns the paths of its files and directories. Those of
// directories have a slash at their end.
func (n nasty) tree(t *testing.T, root string) (paths []string) {
	for range 14 {
		parts := []string{}
		for range 1 + n.IntN(4) {
			parts = append(parts, n.name())
		}
		path := filepath.Join(parts...)
		if os.MkdirAll(filepath.Join(root, filepath.Dir(path)), 0o755) == nil && n.IntN(3) > 0 {
			os.WriteFile(filepath.Join(root, path), nil, 0o644) // it may be there
		}
	}
	check(t, filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(root, path)
		switch {
		case rel == ".git":
			return filepath.SkipDir
		case err != nil || rel == ".":
		case d.IsDir():
			paths = append(paths, rel+"/")
		default:
			paths = append(paths, rel)
		}
		return err
	}))
	return paths
}

// ignored answers as a walk does that reads the rules of each directory.
func ignored(root string, exclude []byte, path string) bool {
	s := (&Stack{}).Push(Parse(exclude, ""))
	dir := ""
	path, isDir := strings.CutSuffix(path, "/")
	for words := strings.Split(path, "/"); ; words = words[1:] {
		if text, err := os.ReadFile(filepath.Join(root, dir, ".gitignore")); err == nil {
			s = s.Push(Parse(text, dir))
		}
		last := len(words) == 1
		here := strings.TrimPrefix(dir+"/"+words[0], "/")
		if s.Match(here, !last || isDir) {
			return true
		}
		if last {
			return false
		}
		dir = here
	}
}

// TestGitIgnoresTheSame asks git about random trees with random rules.
func TestGitIgnoresTheSame(t *testing.T) {
	root := t.TempDir()
	git := func(input string, args ...string) string {
		t.Helper()
		cmd := exec.Command("git", args...)
		cmd.Dir, cmd.Stdin = root, strings.NewReader(input)
		cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1",
			"GIT_DIR="+filepath.Join(root, ".git"), "GIT_WORK_TREE="+root)
		var said bytes.Buffer
		cmd.Stderr = &said
		out, err := cmd.Output()
		if code, ok := err.(*exec.ExitError); err != nil && (!ok || code.ExitCode() != 1 || args[0] != "check-ignore") {
			t.Fatalf("git %q: %v: %s", args, err, said.Bytes())
		}
		return string(out)
	}
	git("", "init", "-q")
	cases, hits := 0, 0
	for seed := range uint64(250) {
		n := nasty{rand.New(rand.NewPCG(seed, 7))}
		entries, err := os.ReadDir(root)
		check(t, err)
		for _, e := range entries {
			if e.Name() != ".git" {
				check(t, os.RemoveAll(filepath.Join(root, e.Name())))
			}
		}
		paths := n.tree(t, root)
		exclude := n.rules(paths)
		check(t, os.WriteFile(filepath.Join(root, ".git/info/exclude"), exclude, 0o644))
		check(t, os.WriteFile(filepath.Join(root, ".gitignore"), n.rules(paths), 0o644))
		for _, path := range paths {
			if strings.HasSuffix(path, "/") && n.IntN(3) == 0 {
				check(t, os.WriteFile(filepath.Join(root, path, ".gitignore"), n.rules(paths), 0o644))
			}
		}
		if len(paths) == 0 {
			continue
		}
		asked := "./" + strings.ReplaceAll(strings.Join(paths, "\x00"), "\x00", "\x00./") + "\x00"
		out := git(strings.ReplaceAll(asked, "/\x00", "\x00"), "check-ignore", "--stdin", "-z", "-v", "-n", "--no-index")
		fields := strings.Split(strings.TrimSuffix(out, "\x00"), "\x00")
		if len(fields) != 4*len(paths) {
			t.Fatalf("git answers %d fields for %d paths", len(fields), len(paths))
		}
		for i, path := range paths {
			pattern := fields[4*i+2]
			want := fields[4*i] != "" && !strings.HasPrefix(pattern, "!")
			cases++
			if want {
				hits++
			}
			if got := ignored(root, exclude, path); got != want {
				t.Errorf("seed %d: %q is ignored: %v, but git says %v by %q of %s", seed, path, got, want, pattern,
					fields[4*i])
			}
		}
	}
	if cases < 3000 || hits < cases/10 {
		t.Errorf("there were %d cases, of which git ignores %d", cases, hits)
	}
	t.Logf("%d cases, %d are ignored", cases, hits)
}
