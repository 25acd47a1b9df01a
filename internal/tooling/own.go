package tooling

import (
	"bytes"
	"encoding/json"
	"regexp"
	"slices"
	"strings"

	"banger/internal/toml"
)

// This file reads the form of each file.

// readMise reads the [tools] of a mise.toml: a version, a list of them, or a table with a version.
func readMise(r *reader, text []byte) {
	var f struct {
		Tools map[string]any `toml:"tools"`
	}
	lines, err := toml.Decode(text, &f)
	if err != nil {
		r.note(0, "%v", err)
		return
	}
	names := make([]string, 0, len(f.Tools))
	for name := range f.Tools {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		line := lines.At("tools", name)
		value := f.Tools[name]
		if list, ok := value.([]any); ok && len(list) > 0 {
			if value = list[0]; len(list) > 1 {
				r.note(line, "only the first of %d versions of %.40q is used", len(list), name)
			}
		}
		if table, ok := value.(map[string]any); ok {
			value = table["version"]
			line = lines.At("tools", name, "version")
		}
		version, ok := value.(string)
		if !ok {
			r.note(line, "%.40q has no version that is a text", name)
			continue
		}
		r.exact(name, version, line)
	}
}

// linesOf returns the lines of a text without comments and blank lines, by their numbers from 1.
func linesOf(text []byte, comment string) (lines []numbered) {
	n := 0
	for line := range strings.Lines(string(text)) {
		n++
		line, _, _ = strings.Cut(line, comment)
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, numbered{line, n})
		}
	}
	return lines
}

type numbered struct {
	text   string
	number int
}

func readToolVersions(r *reader, text []byte) {
	for _, line := range linesOf(text, "#") {
		words := strings.Fields(line.text)
		if len(words) < 2 {
			r.note(line.number, "it is not a name and a version")
			continue
		}
		if len(words) > 2 {
			r.note(line.number, "only the first of %d versions of %.40q is used", len(words)-1, words[0])
		}
		r.exact(words[0], words[1], line.number)
	}
}

// versionFile returns what reads a file with one version of a tool.
func versionFile(tool string) func(*reader, []byte) {
	return func(r *reader, text []byte) {
		lines := linesOf(text, "#")
		if len(lines) == 0 {
			r.note(0, "it has no version")
			return
		}
		if len(lines) > 1 {
			r.note(lines[1].number, "only the first of %d versions of %s is used", len(lines), tool)
		}
		r.exact(tool, lines[0].text, lines[0].number)
	}
}

func readGoMod(r *reader, text []byte) {
	var least, toolchain numbered
	for _, line := range linesOf(text, "//") {
		switch words := strings.Fields(line.text); {
		case len(words) != 2:
		case words[0] == "go" && least.text == "":
			least = numbered{words[1], line.number}
		case words[0] == "toolchain" && words[1] != "default" && words[1] != "local":
			toolchain = numbered{strings.TrimPrefix(words[1], "go"), line.number}
		}
	}
	if toolchain.text != "" {
		r.atLeast("go", toolchain.text, toolchain.number)
	}
	if least.text != "" {
		r.atLeast("go", least.text, least.number)
	}
}

// packageManager matches the field of package.json, with the digest that corepack adds.
var packageManager = regexp.MustCompile(`^(npm|pnpm|yarn|bun)@([^+]+)(\+.*)?$`)

func readPackageJSON(r *reader, text []byte) {
	if !json.Valid(text) {
		r.note(0, "it is not JSON")
		return
	}
	for _, tool := range []string{"node", "npm", "yarn", "pnpm"} {
		if version, line := field(text, "volta", tool); version != "" {
			r.exact(tool, version, line)
		}
	}
	if asked, line := field(text, "engines", "node"); asked != "" {
		r.within("node", asked, line, npmRange)
	}
	asked, line := field(text, "packageManager")
	if asked == "" {
		return
	}
	m := packageManager.FindStringSubmatch(asked)
	if m == nil {
		r.note(line, "%.40q is not a package manager with its version", asked)
		return
	}
	before := len(r.wants)
	r.exact(m[1], m[2], line)
	if digest := m[3]; len(r.wants) > before && len(digest) <= 2*maxWord {
		r.wants[before].Asked += digest
	}
}

// field returns the text of a field of a JSON document, and its line. It returns "" if there is no such text.
func field(text []byte, path ...string) (value string, line int) {
	d := json.NewDecoder(bytes.NewReader(text))
	for depth, name := range path {
		if t, err := d.Token(); err != nil || t != json.Delim('{') {
			return "", 0
		}
		for {
			key, err := d.Token()
			if err != nil || key == json.Delim('}') {
				return "", 0
			}
			if key == name {
				break
			}
			var skipped json.RawMessage
			if d.Decode(&skipped) != nil {
				return "", 0
			}
		}
		if line = bytes.Count(text[:d.InputOffset()], []byte("\n")) + 1; depth == len(path)-1 && d.Decode(&value) != nil {
			return "", 0
		}
	}
	return value, line
}

func readPyproject(r *reader, text []byte) {
	var f struct {
		Project struct {
			Python any `toml:"requires-python"`
		} `toml:"project"`
	}
	lines, err := toml.Decode(text, &f)
	if err != nil {
		r.note(0, "%v", err)
		return
	}
	if asked, ok := f.Project.Python.(string); ok {
		r.within("python", asked, lines.At("project", "requires-python"), pythonRange)
	}
}

// readRustToolchain reads a file with a channel alone, or TOML with one.
func readRustToolchain(r *reader, text []byte) {
	if !bytes.ContainsAny(text, "[=") {
		versionFile("rust")(r, text)
		return
	}
	var f struct {
		Toolchain struct {
			Channel any `toml:"channel"`
		} `toml:"toolchain"`
	}
	lines, err := toml.Decode(text, &f)
	if err != nil {
		r.note(0, "%v", err)
		return
	}
	if channel, ok := f.Toolchain.Channel.(string); ok {
		r.exact("rust", channel, lines.At("toolchain", "channel"))
	}
}

func readGlobalJSON(r *reader, text []byte) {
	if !json.Valid(text) {
		r.note(0, "it is not JSON")
		return
	}
	if version, line := field(text, "sdk", "version"); version != "" {
		r.exact("dotnet", version, line)
	}
}
