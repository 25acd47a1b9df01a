package source

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"banger"
)

// hostSources writes the host's own Debian sources of a suite to a file in deb822 form, with their
// keys. It leaves out sources of other origins.
func hostSources(dir, suite string) (string, error) {
	files, err := filepath.Glob(filepath.Join(dir, "sources.list.d", "*"))
	if err != nil {
		return "", err
	}
	var out strings.Builder
	for _, f := range append([]string{filepath.Join(dir, "sources.list")}, files...) {
		data, err := os.ReadFile(f)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return "", err
		}
		switch filepath.Ext(f) {
		case ".sources":
			keepStanzas(&out, data, suite)
		case ".list":
			keepLines(&out, data, suite)
		}
	}
	if out.Len() == 0 {
		return "", banger.Errorf(banger.CodeUnavailable, "this host has no apt source of Debian %s", suite).
			WithHint("add one below /etc/apt/sources.list.d, or use an image of a registry")
	}
	return out.String(), nil
}

// isSuite reports whether word is the suite or a part of it, such as bookworm, bookworm-updates,
// bookworm-security or bookworm/updates.
func isSuite(word, suite string) bool {
	return word == suite || strings.HasPrefix(word, suite+"-") || strings.HasPrefix(word, suite+"/")
}

// keepStanzas copies the deb822 stanzas (sources.list(5)) all of whose suites belong to suite.
func keepStanzas(out *strings.Builder, data []byte, suite string) {
	for stanza := range strings.SplitSeq(string(data), "\n\n") {
		ours, enabled := false, true
		sc := bufio.NewScanner(strings.NewReader(stanza))
		var kept []string
		for sc.Scan() {
			line := sc.Text()
			if strings.HasPrefix(line, "#") || strings.TrimSpace(line) == "" {
				continue
			}
			kept = append(kept, line)
			key, value, _ := strings.Cut(line, ":")
			switch strings.ToLower(key) {
			case "suites":
				ours = true
				for _, w := range strings.Fields(value) {
					ours = ours && isSuite(w, suite)
				}
			case "enabled":
				enabled = strings.TrimSpace(value) != "no"
			}
		}
		if ours && enabled {
			fmt.Fprintf(out, "%s\n\n", strings.Join(kept, "\n"))
		}
	}
}

// keepLines converts one-line sources of the suite to stanzas.
func keepLines(out *strings.Builder, data []byte, suite string) {
	for line := range bytes.Lines(data) {
		text := strings.TrimSpace(string(line))
		options := ""
		if i, j := strings.IndexByte(text, '['), strings.IndexByte(text, ']'); i > 0 && j > i {
			options, text = text[i+1:j], text[:i]+text[j+1:]
		}
		f := strings.Fields(text)
		if len(f) < 4 || f[0] != "deb" || !isSuite(f[2], suite) {
			continue
		}
		fmt.Fprintf(out, "Types: deb\nURIs: %s\nSuites: %s\nComponents: %s\n", f[1], f[2], strings.Join(f[3:], " "))
		key := "/usr/share/keyrings/debian-archive-keyring.gpg"
		for o := range strings.FieldsSeq(options) {
			if v, ok := strings.CutPrefix(o, "signed-by="); ok {
				key = v
			}
		}
		fmt.Fprintf(out, "Signed-By: %s\n\n", key)
	}
}
