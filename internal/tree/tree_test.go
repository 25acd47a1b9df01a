package tree

import (
	"strings"
	"testing"
)

// TestPathsOfGuests: no component may mean a repository's own directory to any file system, or lead elsewhere.
func TestPathsOfGuests(t *testing.T) {
	for _, path := range []string{"", ".", "..", "/a", "a/", "a//b", "a/./b", "a/../b", "a\x00b", "a\\b", ".git", ".GIT",
		".git/config", "a/.git/config", ".git.", ".git ", ".git...", "GIT~1", "git~1/x", ".g\u200cit", "\ufeff.git",
		".git::$INDEX_ALLOCATION", ".git:x", strings.Repeat("a/", 256) + "b", strings.Repeat("a", 256),
		strings.Repeat("a/", 2100)} {
		if CheckPath(path) == "" {
			t.Errorf("%.100q is a path", path)
		}
	}
	for _, path := range []string{"a", "a b", "a\nb", "\xff", "git", ".gitignore", ".github/x", "a.git/b", "git~2", "-rf",
		"..a", "a..", "\"q\"", strings.Repeat("a", 255)} {
		if why := CheckPath(path); why != "" {
			t.Errorf("%q is no path: %s", path, why)
		}
	}
}

// TestPathsForPeople are as they are, or in quotes with escapes.
func TestPathsForPeople(t *testing.T) {
	for path, want := range map[string]string{"a b": "a b", "ä": "ä", "a\nb": `"a\012b"`, "\xff": `"\377"`, `a"b`: `a"b`,
		`"a`: `"\"a"`, `a\b`: `"a\\b"`, "\x1b[2J": `"\033[2J"`, "": `""`} {
		if got := Quoted(path); got != want {
			t.Errorf("%q is shown as %s, not %s", path, got, want)
		}
	}
}

// TestMerge merges what two sides have made of one tree.
func TestMerge(t *testing.T) {
	s, err := Make(t.Context(), t.TempDir(), "sha1")
	if err != nil {
		t.Fatal(err)
	}
	lines := func(changed ...string) string {
		text := "1\n2\n3\n4\n5\n6\n7\n8\n9\n"
		for i := 0; i+1 < len(changed); i += 2 {
			text = strings.Replace(text, changed[i]+"\n", changed[i+1]+"\n", 1)
		}
		return text
	}
	entry := func(mode, text string) Entry {
		oid, err := s.Blob(t.Context(), strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		return Entry{mode, oid}
	}
	file, program, link := entry(ModeFile, lines()), entry(ModeProgram, lines()), entry(ModeLink, "target")
	top, end, both := entry(ModeFile, lines("1", "one")), entry(ModeFile, lines("9", "nine")),
		entry(ModeFile, lines("1", "one", "9", "nine"))
	zero := func(text string) Entry { return entry(ModeFile, text+"\x00") }
	none, lost := Entry{}, "both sides have changed the same lines"
	for name, tt := range map[string]struct {
		base, ours, theirs, want Entry
		why                      string
	}{
		"nothing":                    {file, file, file, file, ""},
		"ours alone":                 {file, top, file, top, ""},
		"theirs alone":               {file, file, top, top, ""},
		"the same":                   {file, top, top, top, ""},
		"other lines":                {file, top, end, both, ""},
		"the same lines":             {file, top, entry(ModeFile, lines("1", "eins")), none, lost},
		"a mode and lines":           {file, program, top, Entry{ModeProgram, top.OID}, ""},
		"lines and a mode":           {file, top, program, Entry{ModeProgram, top.OID}, ""},
		"they remove":                {file, file, none, none, ""},
		"we remove":                  {file, none, file, none, ""},
		"both remove":                {file, none, none, none, ""},
		"they remove, we change":     {file, top, none, none, "one side has removed it, and the other one has changed it"},
		"we remove, they change":     {file, none, top, none, "one side has removed it, and the other one has changed it"},
		"both add the same":          {none, top, top, top, ""},
		"both add":                   {none, top, end, none, "both sides have added it"},
		"a symlink and lines":        {file, link, top, none, "it is a symlink, and both sides have changed it"},
		"binary":                     {zero("a"), zero("b"), zero("c"), none, lost},
		"they make it a symlink":     {file, file, link, link, ""},
		"we make it one, they agree": {file, link, link, link, ""},
	} {
		t.Run(name, func(t *testing.T) {
			trees := []string{}
			for _, e := range []Entry{tt.base, tt.ours, tt.theirs} {
				l := Listing{"other": file}
				if e != none {
					l["d/f"] = e
				}
				tree, err := s.Write(t.Context(), l)
				if err != nil {
					t.Fatal(err)
				}
				trees = append(trees, tree)
			}
			merged, conflicts, err := Merge(t.Context(), s, trees[0], trees[1], trees[2])
			if err != nil {
				t.Fatal(err)
			}
			why := ""
			if len(conflicts) > 0 {
				why = conflicts[0].Why
			}
			if merged["d/f"] != tt.want || why != tt.why || merged["other"] != file {
				t.Errorf("it becomes %+v, and the conflict is %q", merged, why)
			}
		})
	}
}

// TestAFileAndADirectory at one path conflict.
func TestAFileAndADirectory(t *testing.T) {
	s, err := Make(t.Context(), t.TempDir(), "sha256")
	if err != nil {
		t.Fatal(err)
	}
	oid, err := s.Blob(t.Context(), strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	e := Entry{ModeFile, oid}
	var trees []string
	for _, l := range []Listing{{"a": e}, {"a": e, "d": e}, {"a": e, "d/f": e}} {
		tree, err := s.Write(t.Context(), l)
		if err != nil {
			t.Fatal(err)
		}
		trees = append(trees, tree)
	}
	_, conflicts, err := Merge(t.Context(), s, trees[0], trees[1], trees[2])
	if err != nil || len(conflicts) != 1 || conflicts[0].Path != "d" {
		t.Errorf("%+v, %v", conflicts, err)
	}
}
