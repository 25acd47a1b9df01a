// Package hazard knows which files tools of a host obey when a person opens a tree: editors, shells, package managers,
// CI, coding agents and git.
//
// The package must not know where a tree comes from.
package hazard

import (
	"path"
	"strings"
)

// all are what tools obey. A name that ends with a slash means all below a directory of that name; others are
// patterns of path.Match for the last component of a path.
var all = []struct {
	why   string
	names []string
}{
	{"an editor runs tasks or changes how it works", []string{".vscode/", ".idea/", ".zed/", ".fleet/", "*.code-workspace",
		".nvim.lua", ".nvimrc", ".exrc", ".vimrc", ".lvimrc", ".dir-locals.el", "*.sublime-project", ".devcontainer/",
		"devcontainer.json", ".devcontainer.json"}},
	{"a shell or a version manager runs it on entry", []string{".envrc", ".env", ".autoenv.zsh", "mise.toml",
		".mise.toml", ".mise/", ".tool-versions", ".rtx.toml", "shell.nix", "flake.nix", "devenv.nix"}},
	{"a package manager or a build runs its scripts", []string{"package.json", ".npmrc", ".yarnrc", ".yarnrc.yml",
		".yarn/", ".pnpmfile.cjs", "pnpm-workspace.yaml", "bunfig.toml", "Makefile", "makefile", "GNUmakefile", "*.mk",
		"justfile", "Justfile", ".justfile", "Taskfile.yml", "Taskfile.yaml", "Rakefile", "Gemfile", "setup.py", "setup.cfg",
		"pyproject.toml", "conftest.py", "tox.ini", "noxfile.py", "sitecustomize.py", "build.rs", ".cargo/", "build.gradle",
		"build.gradle.kts", "settings.gradle", "gradlew", "pom.xml", "mvnw", ".mvn/", "CMakeLists.txt", "configure",
		"composer.json", "Cargo.toml", "WORKSPACE", "*.bzl", "BUILD.bazel", ".bazelrc"}},
	{"a CI service runs it", []string{".github/", ".gitlab-ci.yml", ".gitlab/", ".circleci/", ".travis.yml", "Jenkinsfile",
		"azure-pipelines.yml", ".buildkite/", ".drone.yml", ".woodpecker/", ".woodpecker.yml", "appveyor.yml", ".forgejo/",
		".gitea/", "bitbucket-pipelines.yml", ".ci/"}},
	{"a coding agent obeys it", []string{".claude/", "CLAUDE.md", "AGENTS.md", "GEMINI.md", ".cursor/", ".cursorrules",
		".codex/", ".gemini/", ".opencode/", "opencode.json", ".mcp.json", "mcp.json", ".aider*", ".continue/", ".windsurf/",
		".windsurfrules", ".clinerules", ".roo/", ".crush.json", "crush.json", "copilot-instructions.md"}},
	{"git or its hooks obey it", []string{".gitattributes", ".gitmodules", ".gitconfig", ".githooks/", ".husky/",
		".pre-commit-config.yaml", "lefthook.yml", "lefthook.yaml", ".lefthook/", ".lfsconfig"}},
}

// Of returns why a tool of the host may obey a file, or "".
func Of(name string) string {
	dirs := "/" + path.Dir(name) + "/"
	base := path.Base(name)
	for _, h := range all {
		for _, pattern := range h.names {
			if dir, ok := strings.CutSuffix(pattern, "/"); ok {
				if strings.Contains(strings.ToLower(dirs), "/"+dir+"/") {
					return h.why
				}
			} else if ok, _ := path.Match(strings.ToLower(pattern), strings.ToLower(base)); ok {
				return h.why
			}
		}
	}
	return ""
}

// LeadsOut reports whether a symlink with a name and a target leads out of the tree.
func LeadsOut(name, target string) bool {
	if path.IsAbs(target) {
		return true
	}
	at := path.Join(path.Dir(name), target)
	return at == ".." || strings.HasPrefix(at, "../")
}
