package recipe

import (
	"reflect"
	"strings"
	"testing"

	"banger"
	"banger/internal/notation"
)

// TestBangersRecipesAreComplete checks that each has what a user may ask of it.
func TestBangersRecipesAreComplete(t *testing.T) {
	all, err := All()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"claude-code", "codex", "crush", "gemini-cli", "opencode"} {
		r, ok := all[name]
		if !ok {
			t.Errorf("there is no recipe %s", name)
			continue
		}
		if r.Description == "" || len(r.Headless) == 0 || len(r.Yolo) == 0 || len(r.Login) == 0 || len(r.Keep) == 0 ||
			len(r.Secrets) == 0 || len(r.Allow) == 0 {
			t.Errorf("recipe %s lacks something: %+v", name, r)
		}
		if _, ok := r.Bin["node"]; !ok || !r.Node {
			t.Errorf("recipe %s is without Node.js", name)
		}
		for _, rule := range r.Allow {
			if _, err := notation.ParseRule("allow " + rule); err != nil {
				t.Errorf("recipe %s: %v", name, err)
			}
		}
	}
	if _, ok := all[runtime]; ok {
		t.Error("Node.js is an agent")
	}
}

// TestARecipeIsRefused checks what a user's recipe must not be.
func TestARecipeIsRefused(t *testing.T) {
	const sum = "sha512-1KQGBiiDDeL/VHHbHkOvvFo8Jr97WT5+C1tear+p7IcDTnXgVHXqIjU4O4jM4mHQzykTP2i884FCnW5LDa+zCA=="
	of := func(r Recipe) Recipe {
		r.Command = []string{"x"}
		return r
	}
	pack := func(p Package) Recipe { return of(Recipe{Packages: []Package{p}}) }
	for want, r := range map[string]Recipe{
		"has no command":                 {},
		"is no package of npm":           pack(Package{Name: "../x", Version: "1", Integrity: sum}),
		"without the sha512":             pack(Package{Name: "x", Version: "1", Integrity: "sha1-x"}),
		"not below its directory":        pack(Package{Name: "x", Version: "1", Integrity: sum, Path: "../x"}),
		"no file below its directory":    of(Recipe{Bin: map[string]string{"x": "/etc/passwd"}}),
		"no path below $HOME":            of(Recipe{Keep: []string{"../../etc"}}),
		"which is no name":               of(Recipe{Secrets: []string{"A=B"}}),
		"no address of a web server":     of(Recipe{Archives: []Archive{{URL: "file:///etc", SHA256: "00"}}}),
		"without the sha256":             of(Recipe{Archives: []Archive{{URL: "https://x.example/x", SHA256: "00"}}}),
		"serves without a command and a": of(Recipe{Serve: &Serve{}}),
	} {
		if _, err := r.Own(); banger.CodeOf(err) != banger.CodeInvalid || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: the error is %v", want, err)
		}
	}
}

// TestAUsersRecipeComesFirst checks names, aliases and the error for an unknown one.
func TestAUsersRecipeComesFirst(t *testing.T) {
	own := map[string]Recipe{"codex": {Command: []string{"mine"}}}
	for name, want := range map[string]string{
		"codex": "mine", "claude": "claude", "claude-code": "claude", "gemini": "gemini",
	} {
		if _, r, err := Find(name, own); err != nil || r.Command[0] != want {
			t.Errorf("%s is %+v, %v", name, r.Command, err)
		}
	}
	_, _, err := Find("nobody", own)
	const known = "claude-code, codex, crush, gemini-cli, opencode"
	if banger.CodeOf(err) != banger.CodeNotFound || !strings.Contains(err.Error(), known) {
		t.Errorf("the error is %v", err)
	}
}

// TestLinesTakeTheUsersWords checks that a prompt stays one word, and that full permissions come only when asked for.
func TestLinesTakeTheUsersWords(t *testing.T) {
	r := Recipe{Headless: []string{"a", YoloWord, PromptWord}, Yolo: []string{"--all", "--now"}}
	for _, c := range []struct {
		yolo  bool
		extra []string
		want  []string
	}{
		{false, nil, []string{"a", "say; {yolo}"}},
		{true, []string{"-v"}, []string{"a", "--all", "--now", "say; {yolo}", "-v"}},
	} {
		if got := r.Line(r.Headless, "say; {yolo}", c.yolo, c.extra...); !reflect.DeepEqual(got, c.want) {
			t.Errorf("the line is %q", got)
		}
	}
}
