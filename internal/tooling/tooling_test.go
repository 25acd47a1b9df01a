package tooling

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"banger/internal/notation"
	"banger/internal/toml"
)

// repository makes a repository with files, whose names and texts are given one after the other.
func repository(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	if err := os.Mkdir(filepath.Join(root, ".git"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func read(t *testing.T, dir string) Plan {
	t.Helper()
	p, err := Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// show returns a plan as one line: name version (asked, where it is written).
func show(p Plan) string {
	var list []string
	for _, t := range p.Tools {
		list = append(list, fmt.Sprintf("%s %s (%s, %s)", t.Name, t.Version, t.Asked, t.Source))
	}
	return strings.Join(list, "; ")
}

// TestEachFileIsRead has each file as projects have it.
func TestEachFileIsRead(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"mise.toml", "[env]\nA = '1'\n[tools]\nnode = '20'\n'npm:prettier' = '3'\n",
			"node 20 (20, mise.toml:4); npm:prettier 3 (3, mise.toml:5)"},
		{".mise.toml", "tools.go = ['1.26', '1.25']", "go 1.26 (1.26, .mise.toml:1)"},
		{"mise.toml", "[tools.python]\nversion = '3.12'\nvirtualenv = '.venv'", "python 3.12 (3.12, mise.toml:2)"},
		{"mise.toml", "[tools]\nrust = {version = 'nightly', profile = 'minimal'}", "rust nightly (nightly, mise.toml:2)"},
		{".tool-versions", "# ours\nnodejs 20.1.0\n\ngolang 1.26.3 # the newest\n",
			"go 1.26.3 (1.26.3, .tool-versions:4); node 20.1.0 (20.1.0, .tool-versions:2)"},
		{"go.mod", "module x\n\ngo 1.26.3\n", "go 1.26.3 (1.26.3, go.mod:3)"},
		{"go.mod", "module x\ngo 1.25 // or later\ntoolchain go1.26.3\n", "go 1.26.3 (1.26.3, go.mod:3)"},
		{".go-version", "go1.26", "go 1.26 (go1.26, .go-version:1)"},
		{"package.json", "{\n\"name\": \"x\",\n\"engines\": {\"npm\": \"1\",\n\"node\": \"^20.1\"}}",
			"node 20 (^20.1, package.json:4)"},
		{"package.json", "{\"packageManager\": \"pnpm@9.1.0+sha512.0123abcd\"}",
			"pnpm 9.1.0 (9.1.0+sha512.0123abcd, package.json:1)"},
		{"package.json", "{\"volta\": {\"node\": \"20.1.0\", \"yarn\": \"1.22.19\"}}",
			"node 20.1.0 (20.1.0, package.json:1); yarn 1.22.19 (1.22.19, package.json:1)"},
		{".nvmrc", "lts/*\n", "node lts (lts/*, .nvmrc:1)"},
		{".nvmrc", "lts/iron", "node 20 (lts/iron, .nvmrc:1)"},
		{".node-version", "v20.1.0\n", "node 20.1.0 (v20.1.0, .node-version:1)"},
		{".python-version", "3.12.4\n3.11.9\n", "python 3.12.4 (3.12.4, .python-version:1)"},
		{"pyproject.toml", "[project]\nname = 'x'\nrequires-python = '>=3.11,<3.13'",
			"python 3.12 (>=3.11,<3.13, pyproject.toml:3)"},
		{"rust-toolchain", "1.75.0\n", "rust 1.75.0 (1.75.0, rust-toolchain:1)"},
		{"rust-toolchain", "[toolchain]\nchannel = '1.75'", "rust 1.75 (1.75, rust-toolchain:2)"},
		{"rust-toolchain.toml", "[toolchain]\nprofile = 'minimal'\nchannel = 'nightly-2024-01-01'",
			"rust nightly-2024-01-01 (nightly-2024-01-01, rust-toolchain.toml:3)"},
		{".ruby-version", "ruby-3.4.1\n", "ruby 3.4.1 (ruby-3.4.1, .ruby-version:1)"},
		{".java-version", "temurin-21\n", "java temurin-21 (temurin-21, .java-version:1)"},
		{"global.json", "{\"sdk\": {\n\"rollForward\": \"latestFeature\",\n\"version\": \"8.0.100\"}}",
			"dotnet 8.0.100 (8.0.100, global.json:3)"},
		{".terraform-version", "1.9.5", "terraform 1.9.5 (1.9.5, .terraform-version:1)"},
	} {
		p := read(t, repository(t, map[string]string{c.name: c.text}))
		if got := show(p); got != c.want {
			t.Errorf("%s %q: the plan is %s (%q), not %s", c.name, c.text, got, p.Notes, c.want)
		}
	}
}

// TestWhichFileCounts has several files that ask for one tool.
func TestWhichFileCounts(t *testing.T) {
	for _, c := range []struct {
		files     map[string]string
		want      string // the version and its file
		conflicts string
	}{
		{map[string]string{"mise.toml": "tools.node = '20'", ".mise.toml": "tools.node = '21'", ".nvmrc": "20.1"},
			"20 mise.toml:1", ".mise.toml:1"},
		{map[string]string{".tool-versions": "node 20", ".node-version": "20.1.0", ".nvmrc": "v22"},
			"20 .tool-versions:1", ".nvmrc:1"},
		{map[string]string{"package.json": `{"engines": {"node": ">=18"}, "volta": {"node": "20.1.0"}}`},
			"20.1.0 package.json:1", ""},
		{map[string]string{"package.json": `{"engines": {"node": ">=18 <20"}}`, ".nvmrc": "20"},
			"20 .nvmrc:1", "package.json:1"},
		{map[string]string{"package.json": `{"engines": {"node": "^20.5"}}`, ".nvmrc": "20.4.1"},
			"20.4.1 .nvmrc:1", "package.json:1"},
		{map[string]string{"package.json": `{"engines": {"node": "^20.5"}}`, ".nvmrc": "20"}, "20 .nvmrc:1", ""},
		{map[string]string{"go.mod": "go 1.26.3", ".go-version": "1.26.4"}, "1.26.4 .go-version:1", ""},
		{map[string]string{"go.mod": "go 1.26.3", ".go-version": "1.25"}, "1.25 .go-version:1", "go.mod:1"},
		{map[string]string{"go.mod": "go 1.25\ntoolchain go1.26.3"}, "1.26.3 go.mod:2", ""},
		{map[string]string{".python-version": "3.13", "pyproject.toml": "[project]\nrequires-python = '~=3.11.2'"},
			"3.13 .python-version:1", "pyproject.toml:2"},
		{map[string]string{".nvmrc": "lts/*", "package.json": `{"engines": {"node": "^20"}}`}, "lts .nvmrc:1", ""},
		{map[string]string{"rust-toolchain": "stable", "rust-toolchain.toml": "toolchain.channel = 'nightly'"},
			"stable rust-toolchain:1", "rust-toolchain.toml:1"},
	} {
		p := read(t, repository(t, c.files))
		var conflicts []string
		for _, x := range p.Conflicts {
			conflicts = append(conflicts, x.Other.String())
		}
		tool := p.Tools[0]
		if got := tool.Version + " " + tool.Source.String(); got != c.want || strings.Join(conflicts, " ") != c.conflicts {
			t.Errorf("%q: %s counts, against %q; it should be %s, against %s", c.files, got, conflicts, c.want, c.conflicts)
		}
		if !strings.Contains(fmt.Sprint(p.Conflicts), c.conflicts) {
			t.Errorf("the conflicts are shown as %v", p.Conflicts)
		}
	}
}

// TestRangesBecomeThePrefixToInstall has "" for a range whose newest prefix is not known.
func TestRangesBecomeThePrefixToInstall(t *testing.T) {
	for text, want := range map[string]string{
		"^20": "20", "^20.1": "20", "^0.3.1": "0.3", "^0.0.3": "0.0.3", "~1.2.3": "1.2", "~1": "1", "~ 1.2": "1.2",
		"20": "20", "20.x": "20", "20.1.*": "20.1", "=20.1.0": "20.1.0", "v20.1.0": "20.1.0", "*": "lts", "x": "lts",
		">=20": "lts", ">= 20": "lts", ">=20 <23": "22", ">=20.1.0 <20.6": "20.5", "<21": "20", "<=20": "20",
		"<=20.1.0": "20.1.0",
		"<20.1.0":  "20.0", "18 || 20": "20", "20 || 18": "20", "18 || >=20": "lts", ">=30": "latest", ">24": "latest",
		"18 - 20": "20", "18.1.0 - 20.2.0": "20.2.0", ">20.1.0 <20.1.2": "20.1.1",
		">=20 <20": "", ">=20.0.0-rc.1": "", "banana": "", "<0": "", ">=21 <20": "", "<0 || 18": "18", "^": "", "||": "lts",
		"latest": "",
	} {
		if got := newest(npmRange(text), newestNode(npmRange(text))); got != want {
			t.Errorf("npm: %q becomes %q, not %q", text, got, want)
		}
	}
	for text, want := range map[string]string{
		">=3.11,<3.13": "3.12", "~=3.11": "3", "~=3.11.2": "3.11", "==3.12.*": "3.12", "==3.12.1": "3.12.1",
		"==3.12": "3.12.0",
		">=3.11": "latest", ">3.11,<4": "3", "<=3.12": "3.12.0", "^3.11": "3",
		">= 3.11 , < 3.13":    "3.12",
		">=3.9,!=3.9.0,<3.12": "3.11", ">=3.9,!=3.11.*,<3.12": "", ">=3.13,<3.12": "", "3.12": "", ">=3.13.0rc1": "",
		"~=3": "", "!=3.9.1,>=3.8": "latest",
	} {
		if got := newest(pythonRange(text), "latest"); got != want {
			t.Errorf("python: %q becomes %q, not %q", text, got, want)
		}
	}
}

// TestWhatIsHostileIsLeftOut checks that files of a stranger become notes.
func TestWhatIsHostileIsLeftOut(t *testing.T) {
	for name, c := range map[string]struct{ file, text, note string }{
		"a flag as a version":     {".nvmrc", "--force", "not a version"},
		"a command as a version":  {".tool-versions", "node $(reboot)", "not a version"},
		"a second line":           {"mise.toml", `tools.node = "20\n[x]"`, "not a version"},
		"a quote as a name":       {"mise.toml", `[tools]` + "\n" + `'a"b' = "1"`, "not a name"},
		"a flag as a name":        {".tool-versions", "--yes 1", "not a name"},
		"a template":              {"mise.toml", `tools.node = "{{ env.X }}"`, "not a version"},
		"a shell in a range":      {"package.json", `{"engines": {"node": ">=1; reboot"}}`, "not a range"},
		"a control character":     {"package.json", `{"engines": {"node": "\u001b[31m20"}}`, "not a range"},
		"a very long version":     {".nvmrc", strings.Repeat("1", 200), "not a version"},
		"a directory of the host": {".tool-versions", "node path:/etc", "directory of the host"},
		"broken TOML":             {"mise.toml", "[tools\n", "not TOML"},
		"broken JSON":             {"package.json", "{", "not JSON"},
		"a number as a version":   {"mise.toml", "tools.node = 20", "no version that is a text"},
		"a table of nothing":      {"mise.toml", "[tools.node]", "no version that is a text"},
		"an empty file":           {".nvmrc", "\n", "no version"},
		"another manager":         {"package.json", `{"packageManager": "evil@1"}`, "not a package manager"},
		"a large file":            {"go.mod", strings.Repeat("\n", maxFile+1), "more than"},
		"a range without numbers": {"pyproject.toml", "project.requires-python = '>=3.13.0rc1'", "pin one in mise.toml"},
		"too many tools": {".tool-versions", strings.Repeat("node 20\n", 2*maxTools),
			"more than 200 versions"},
	} {
		p := read(t, repository(t, map[string]string{c.file: c.text}))
		if len(p.Notes) == 0 || !strings.Contains(p.Notes[0], c.note) || strings.ContainsAny(p.Notes[0], "\n\x1b") {
			t.Errorf("%s: the notes are %q, without %q", name, p.Notes, c.note)
		}
		if len(p.Notes) > maxNotes || len(p.Tools) > 1 || len(p.Tools) == 1 && len(p.Tools[0].Also) > maxTools {
			t.Errorf("%s: the plan is large", name)
		}
	}
}

// TestOnlyRegularFilesBelowTheRootAreRead has a symlink out of the root, a pipe and a directory in the place of files.
func TestOnlyRegularFilesBelowTheRootAreRead(t *testing.T) {
	root := repository(t, map[string]string{"real": "20"})
	outside := filepath.Join(t.TempDir(), "version")
	for _, err := range []error{
		os.WriteFile(outside, []byte("1.26"), 0o600),
		os.Symlink(outside, filepath.Join(root, ".go-version")),
		os.Symlink("real", filepath.Join(root, ".nvmrc")),
		os.Mkdir(filepath.Join(root, "package.json"), 0o700),
		syscall.Mkfifo(filepath.Join(root, ".python-version"), 0o600),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	p := read(t, root)
	if got := show(p); got != "node 20 (20, .nvmrc:1)" || len(p.Notes) != 3 {
		t.Errorf("the plan is %s, with the notes %q", got, p.Notes)
	}
}

// TestThePlanIsOfTheRepositoryAround reads from a directory below the root, and from one in no repository.
func TestThePlanIsOfTheRepositoryAround(t *testing.T) {
	root := repository(t, map[string]string{".nvmrc": "20"})
	below := filepath.Join(root, "a", "b")
	if err := os.MkdirAll(below, 0o700); err != nil {
		t.Fatal(err)
	}
	if p := read(t, below); p.Root != root || len(p.Tools) != 1 {
		t.Errorf("the plan is of %s", p.Root)
	}
	alone := t.TempDir()
	if p := read(t, alone); p.Root != alone || len(p.Tools) != 0 {
		t.Errorf("the plan is of %s", p.Root)
	}
	for _, path := range []string{filepath.Join(root, "none"), filepath.Join(root, ".nvmrc")} {
		if _, err := Read(path); err == nil {
			t.Errorf("%s is read", path)
		}
	}
}

// TestTheConfigurationIsMises reads what Config writes, and compares keys of plans.
func TestTheConfigurationIsMises(t *testing.T) {
	root := repository(t, map[string]string{
		".tool-versions": "node 20\nnpm:@scope/tool 1.2", "pyproject.toml": "project.requires-python = 'banana'",
	})
	p := read(t, root)
	var f struct{ Tools map[string]string }
	if _, err := toml.Decode(p.Config(), &f); err != nil || len(f.Tools) != 2 || f.Tools["npm:@scope/tool"] != "1.2" {
		t.Errorf("the configuration is %s: %v", p.Config(), err)
	}
	other := read(t, repository(t, map[string]string{"mise.toml": "tools.node = '20'\ntools.'npm:@scope/tool' = '1.2'"}))
	if p.Key() != other.Key() || p.Key() == (Plan{}).Key() {
		t.Error("the keys of plans do not say what is installed")
	}
}

// TestAPinCountsFirst pins a tool that files ask for, and one that no file has.
func TestAPinCountsFirst(t *testing.T) {
	p := read(t, repository(t, map[string]string{
		".nvmrc": "22", "package.json": `{"engines": {"node": ">=20"}}`, "pyproject.toml": "project.requires-python = 'x'",
	}))
	at := Source{"20.1", "banger.toml", 3}
	p.Pin("node", at)
	p.Pin("go", Source{"1.26", "banger.toml", 4})
	p.Pin("python", Source{"3.12", "banger.toml", 5})
	p.Pin("--force", Source{"1", "banger.toml", 6})
	const want = "go 1.26 (1.26, banger.toml:4); node 20.1 (20.1, banger.toml:3); python 3.12 (3.12, banger.toml:5)"
	if got := show(p); got != want || len(p.Notes) != 0 {
		t.Errorf("the plan is %s, with the notes %q", got, p.Notes)
	}
	if len(p.Conflicts) != 1 || p.Conflicts[0].Counts != at || p.Conflicts[0].Other.File != ".nvmrc" ||
		len(p.Tools[1].Also) != 2 {
		t.Errorf("the conflicts are %v of %+v", p.Conflicts, p.Tools[1])
	}
	if Check("go", "1.26") != nil || Check("-go", "1.26") == nil || Check("go", "$(x)") == nil {
		t.Error("Check does not say what can be pinned")
	}
}

// TestHostsAndRegistriesAreRules checks that the network's notation takes them.
func TestHostsAndRegistriesAreRules(t *testing.T) {
	root := repository(t, map[string]string{
		".tool-versions": "node 20\nnpm:prettier 3\nripgrep 14", "go.mod": "go 1.26", "x.csproj": "",
		"requirements-dev.txt": "",
		"Cargo.toml":           "", "Gemfile": "", "build.gradle.kts": "", "yarn.lock": "",
	})
	hosts, registries := read(t, root).Hosts(), Registries(root)
	for _, rule := range append(hosts, registries...) {
		if _, err := notation.ParseRule("allow " + rule); err != nil {
			t.Error(err)
		}
	}
	has := func(list []string, names string) {
		t.Helper()
		for name := range strings.FieldsSeq(names) {
			if !strings.Contains(strings.Join(list, "|")+"|", name+" tcp:443|") {
				t.Errorf("%s is not in %q", name, list)
			}
		}
	}
	has(hosts, "nodejs.org dl.google.com mise-versions.jdx.dev registry.npmjs.org release-assets.githubusercontent.com")
	has(registries, "proxy.golang.org sum.golang.org files.pythonhosted.org index.crates.io rubygems.org api.nuget.org "+
		"plugins.gradle.org registry.yarnpkg.com")
	if list := (Plan{}).Hosts(); len(list) != 0 {
		t.Errorf("an empty plan reaches %q", list)
	}
	if list := Registries(t.TempDir()); len(list) != 0 {
		t.Errorf("an empty directory reaches %q", list)
	}
}

// FuzzFiles checks that no file of a stranger makes the reader fail, or gives a tool that is not safe to install.
func FuzzFiles(f *testing.F) {
	f.Add(0, []byte("[tools]\nnode = '20'"))
	f.Add(7, []byte(`{"engines": {"node": ">=20 <23 || ^18"}, "packageManager": "pnpm@9+sha1.x"}`))
	f.Add(9, []byte("[project]\nrequires-python = '>=3.9,!=3.11.*'"))
	f.Fuzz(func(t *testing.T, which int, text []byte) {
		file := files[uint(which)%uint(len(files))]
		r := &reader{file: file.name}
		file.parse(r, text)
		for _, w := range r.wants {
			if !safeName.MatchString(w.tool) || w.version != "" && !safeVersion.MatchString(w.version) {
				t.Errorf("%q %q is not safe", w.tool, w.version)
			}
		}
	})
}
