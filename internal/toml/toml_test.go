package toml

import (
	"errors"
	"strings"
	"testing"
)

const example = `# a comment
cpus = 2
a.b = """
two lines"""

[policy]
allow = [
  "x",
]
inner = { deny = ["y"], more = { deep = 1 } }

[[sync]]
host = "a"

[[sync]]
guest = "b"
[sync.more]
"odd key" = 1
`

// TestEachKeyHasItsLine reads a file with all kinds of keys.
func TestEachKeyHasItsLine(t *testing.T) {
	lines, err := Decode([]byte(example), &struct{}{})
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]int{
		"cpus": 2, "a": 3, "a.b": 3, "policy": 6, "policy.allow": 7, "policy.inner.deny": 10, "policy.inner.more.deep": 10,
		"sync": 12, "sync.0": 12, "sync.0.host": 13, "sync.1": 15, "sync.1.guest": 16, "sync.1.more.odd key": 18,
		"sync.1.more.no such key": 17, "none": 1,
	} {
		if got := lines.At(strings.Split(path, ".")...); got != want {
			t.Errorf("%s is on line %d, not %d", path, got, want)
		}
	}
	if lines.Has("sync", "2") || !lines.Has("sync", "1") {
		t.Error("Has does not say what the file has")
	}
}

// TestErrorsSayTheLine has files that are wrong, and what is said of them.
func TestErrorsSayTheLine(t *testing.T) {
	type file struct {
		CPUs   int `toml:"cpus"`
		Policy struct {
			Allow []string `toml:"allow"`
		} `toml:"policy"`
		Sync []struct {
			Host string `toml:"host"`
		} `toml:"sync"`
		Any map[string]any `toml:"any"`
	}
	for text, want := range map[string]string{
		"\ncpus = ":                  "line 2: this is not TOML",
		"a = 1\n[":                   "line 2: this is not TOML",
		"\ncpus = \"x\"":             `line 2: the value of "cpus" is of the wrong kind`,
		"cpus = 1.5":                 `line 1: the value of "cpus" is of the wrong kind`,
		"[policy]\nallow = 1":        `line 2: the value of "policy.allow" is of the wrong kind`,
		"[policy]\n\nalow = []":      `line 3: the key "policy.alow" is unknown`,
		"CPUS = 1":                   `line 1: the key "CPUS" is unknown`,
		"policy = {\"x y\" = 1}":     `line 1: the key "policy.x y" is unknown`,
		"[[sync]]\nhost='a'\nhots=1": `line 3: the key "sync.0.hots" is unknown`,
		"sync = [{hots = 'a'}]":      `line 1: the key "hots" is unknown`,
		"[any]\nx = {y = 1}\n[a]":    `line 3: the key "a" is unknown`,
		"[tools]\na = 1":             `line 1: the key "tools" is unknown`,
		"cpus = 1\ncpus = 2":         `line 2: the key "cpus" is there twice`,
		"[policy]\na = 1\n[policy]":  `line 3: the key "policy" is there twice`,
		"a = \xff":                   "line 1",
		strings.Repeat("#", Max+1):   "more than",
	} {
		_, err := DecodeStrict([]byte(text), &file{})
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "toml:") {
			t.Errorf("%.40q: %v, not %s", text, err, want)
		}
	}
	var unknown *Unknown
	if _, err := DecodeStrict([]byte("x = 1"), &file{}); !errors.As(err, &unknown) ||
		unknown.Path[0] != "x" || strings.Join(unknown.Known, " ") != "any cpus policy sync" {
		t.Errorf("the error for an unknown key is %#v", err)
	}
}

// TestDeepFilesEndSoon reads files that nest as deeply as their size allows.
func TestDeepFilesEndSoon(t *testing.T) {
	for name, text := range map[string]string{
		"a dotted key": strings.Repeat("a.", 1000) + "a = 1",
		"a header":     "[" + strings.Repeat("a.", 1000) + "a]",
		"tables":       strings.Repeat("a={", 1000) + strings.Repeat("}", 1000),
		"arrays":       "a=" + strings.Repeat("[", 1000) + strings.Repeat("]", 1000),
		"many headers": strings.Repeat("[[a]]\n", Max/6),
	} {
		var v map[string]any
		if lines, err := Decode([]byte(text), &v); err != nil || lines.At("a") != 1 {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzDecode checks that no text makes it fail in another way than by an error.
func FuzzDecode(f *testing.F) {
	f.Add([]byte(example))
	f.Fuzz(func(_ *testing.T, text []byte) {
		var v map[string]any
		Decode(text, &v)
	})
}
