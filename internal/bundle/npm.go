package bundle

import (
	"bufio"
	"io"
	"net/url"
	"os"
	"strings"
)

// NPM says where the packages of npm are.
type NPM struct {
	registry string
	scopes   map[string]string // the registries of scopes such as @acme
}

// publicNPM is npm's preset registry.
const publicNPM = "https://registry.npmjs.org/"

// NPMOf reads the registries as npm does: from npm_config_registry of the environment, then from the .npmrc of a home
// directory. environ has elements NAME=value. Logins for registries are not used.
func NPMOf(environ []string, npmrc string) NPM {
	n := NPM{registry: publicNPM, scopes: map[string]string{}}
	if f, err := os.Open(npmrc); err == nil {
		defer f.Close()
		lines := bufio.NewScanner(io.LimitReader(f, 1<<20))
		for lines.Scan() {
			n.line(lines.Text())
		}
	}
	for _, e := range environ {
		name, value, _ := strings.Cut(e, "=")
		if strings.EqualFold(name, "npm_config_registry") {
			n.line("registry=" + value)
		}
	}
	return n
}

// line takes the setting of a registry from a line NAME=value. It leaves out other lines.
func (n *NPM) line(text string) {
	name, value, ok := strings.Cut(text, "=")
	name, value = strings.TrimSpace(name), strings.Trim(strings.TrimSpace(value), `"'`)
	u, err := url.Parse(value)
	if !ok || err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return
	}
	value = strings.TrimSuffix(value, "/") + "/"
	if name == "registry" {
		n.registry = value
	} else if scope, ok := strings.CutSuffix(name, ":registry"); ok && strings.HasPrefix(scope, "@") {
		n.scopes[scope] = value
	}
}

// Tarball returns the address of a package's file.
func (n NPM) Tarball(name, version string) string {
	base, file := n.registry, name
	if scope, rest, ok := strings.Cut(name, "/"); ok {
		file = rest
		if own := n.scopes[scope]; own != "" {
			base = own
		}
	}
	return base + name + "/-/" + file + "-" + version + ".tgz"
}
