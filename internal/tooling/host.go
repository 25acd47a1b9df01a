package tooling

import (
	"os"
	"path"
	"slices"
	"strings"
)

// Where installers and package managers download from. Each name is allowed by TLS alone.
var (
	github = []string{"github.com", "api.github.com", "codeload.github.com", "raw.githubusercontent.com",
		"objects.githubusercontent.com", "release-assets.githubusercontent.com"}
	npm       = []string{"registry.npmjs.org"}
	goModules = []string{"proxy.golang.org", "sum.golang.org"}
	pypi      = []string{"pypi.org", "files.pythonhosted.org"}
	crates    = []string{"index.crates.io", "static.crates.io"}
	gems      = []string{"rubygems.org", "index.rubygems.org"}
	rustup    = []string{"static.rust-lang.org", "sh.rustup.rs"}
	maven     = []string{"repo.maven.apache.org", "repo1.maven.org"}
	gradle    = []string{"plugins.gradle.org", "services.gradle.org", "downloads.gradle.org"}
	nuget     = []string{"api.nuget.org"}
)

// installers has the hosts of mise's own installers. Other tools come from GitHub.
var installers = map[string][]string{
	"node":      {"nodejs.org"},
	"go":        {"go.dev", "dl.google.com"},
	"python":    github,
	"rust":      rustup,
	"ruby":      append([]string{"cache.ruby-lang.org"}, github...),
	"java":      append([]string{"mise-java.jdx.dev", "download.java.net", "api.adoptium.net"}, github...),
	"dotnet":    {"dot.net", "builds.dotnet.microsoft.com", "api.nuget.org"},
	"terraform": {"releases.hashicorp.com", "checkpoint-api.hashicorp.com"},
	"npm":       npm,
	"yarn":      append([]string{"repo.yarnpkg.com"}, npm...),
	"pnpm":      append(slices.Clone(npm), github...),
	"deno":      {"dl.deno.land", "deno.land"},
}

// backends has the hosts of tools whose names begin with the place where they come from, such as npm:prettier.
var backends = map[string][]string{
	"npm": npm, "pipx": pypi, "cargo": crates, "gem": gems, "go": goModules, "dotnet": nuget,
}

// versions is where mise looks up which versions there are.
const versions = "mise-versions.jdx.dev"

// Hosts returns what the installers of the tools must reach, as rules in the notation of --net-allow. The list is the
// part that is known; a tool of a plugin may need more.
func (p Plan) Hosts() []string {
	if len(p.Tools) == 0 {
		return nil
	}
	names := []string{versions}
	for _, t := range p.Tools {
		backend, _, found := strings.Cut(t.Name, ":")
		hosts, known := installers[t.Name]
		if found {
			hosts, known = backends[backend]
		}
		if !known {
			hosts = github
		}
		names = append(names, hosts...)
	}
	return rules(names)
}

// rules returns a rule for TLS to each host, sorted.
func rules(names []string) []string {
	names = slices.Clone(names)
	slices.Sort(names)
	names = slices.Compact(names)
	for i, name := range names {
		names[i] = name + " tcp:443"
	}
	return names
}

// registries has the hosts that package managers use, by patterns of the files that projects of theirs have.
var registries = []struct {
	files string
	hosts []string
}{
	{"package.json", npm},
	{"yarn.lock", []string{"registry.yarnpkg.com"}},
	{"go.mod", goModules},
	{"pyproject.toml requirements*.txt setup.py Pipfile", pypi},
	{"Cargo.toml", crates},
	{"Gemfile", gems},
	{"pom.xml", maven},
	{"build.gradle build.gradle.kts", slices.Concat(maven, gradle)},
	{"*.csproj *.fsproj *.sln global.json", nuget},
}

// maxEntries bounds how many entries of a directory are looked at.
const maxEntries = 10_000

// Registries returns what the package managers of the project in a directory must reach, as rules in the notation of
// --net-allow. It looks at the names of files alone.
func Registries(dir string) []string {
	d, err := os.Open(dir)
	if err != nil {
		return nil
	}
	defer d.Close()
	entries, _ := d.Readdirnames(maxEntries)
	var names []string
	for _, r := range registries {
		if slices.ContainsFunc(strings.Fields(r.files), func(pattern string) bool {
			return slices.ContainsFunc(entries, func(name string) bool {
				is, _ := path.Match(pattern, name)
				return is
			})
		}) {
			names = append(names, r.hosts...)
		}
	}
	return rules(names)
}
