package workspace

import (
	"context"
	"path"
	"strings"

	"banger/internal/tree"
)

// Hazard is a changed file that a tool of the host may obey when a person opens the tree.
type Hazard struct {
	Path string `json:"path"`
	Why  string `json:"why"`
}

// hazards are what tools obey. A name that ends with a slash means all below a directory of that name; others are
// patterns of path.Match for the last component of a path.
var hazards = []struct {
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

// hazardOf returns why a tool of the host may obey a file, or "".
func hazardOf(name string) string {
	dirs := "/" + path.Dir(name) + "/"
	base := path.Base(name)
	for _, h := range hazards {
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

// Hazards returns the files that the guest has changed and that tools of the host may obey.
func (c *Capture) Hazards(ctx context.Context) (list []Hazard, err error) {
	changes, err := c.Changes(ctx)
	if err != nil {
		return nil, err
	}
	now, err := c.quar.List(ctx, c.Tree)
	if err != nil {
		return nil, err
	}
	for _, change := range changes {
		why, err := c.hazard(ctx, now, change.Path)
		if err != nil {
			return nil, err
		}
		if why != "" {
			list = append(list, Hazard{change.Path, why})
		}
	}
	return list, nil
}

// hazard returns why a tool may obey a file of a listing, or "".
func (c *Capture) hazard(ctx context.Context, now tree.Listing, name string) (string, error) {
	e, ok := now[name]
	if !ok {
		return "", nil
	}
	if e.Mode != tree.ModeLink {
		return hazardOf(name), nil
	}
	target, err := c.quar.Git.Bytes(ctx, "", "cat-file", "blob", e.OID)
	if err == nil && leadsOut(name, string(target)) {
		return "it is a symlink that leads out of the tree", nil
	}
	return hazardOf(name), err
}

// leadsOut reports whether a symlink leads out of the tree.
func leadsOut(name, target string) bool {
	if path.IsAbs(target) {
		return true
	}
	at := path.Join(path.Dir(name), target)
	return at == ".." || strings.HasPrefix(at, "../")
}
