package banger_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// confined lists imports that only certain packages may have.
var confined = map[string]string{
	"database/sql":                 "internal/store",
	"net/http":                     "internal/api internal/api/client internal/api/wire internal/bundle internal/cli/web internal/daemon internal/image/source internal/registry internal/testing/apitest internal/testing/model internal/testing/registrytest internal/vmm/firecracker internal/testing/double internal/local internal/web node node/worker",
	"github.com/coder/websocket":   "internal/web",
	"os/user":                      "internal/host",
	"unsafe":                       "internal/agent/boot internal/agent/command internal/archive internal/host internal/inflate internal/shim/server",
	"gvisor.dev":                   "internal/network/netstack",
	"github.com/google/nftables":   "internal/network/bridge internal/network/bridge/nft",
	"github.com/vishvananda":       "internal/ipaddr internal/network/bridge internal/network/netstack internal/testing/networktest",
	"github.com/mdlayher/netlink":  "internal/network/bridge internal/network/bridge/nft",
	"github.com/florianl/go-nflog": "internal/network/bridge",
	"math/rand":                    "",
	"math/rand/v2":                 "",
	"log":                          "",
	"io/ioutil":                    "",
	"net/http/pprof":               "",
	"github.com/spf13":             "internal/cli internal/cli/account internal/cli/acp internal/cli/agent internal/cli/background internal/cli/command internal/cli/completion internal/cli/config internal/cli/diff internal/cli/library internal/cli/logs internal/cli/manual internal/cli/policy internal/cli/remote internal/cli/secret internal/cli/snapshot internal/cli/spec internal/cli/system internal/cli/tooling internal/cli/view internal/cli/web internal/cli/work internal/cli/workspace node/cluster",
	"github.com/fsnotify":          "internal/logfile",
	"gopkg.in/natefinch":           "internal/logfile",
}

const module = "banger"

func TestImportsFollowTheLayout(t *testing.T) {
	for dir, files := range parsePackages(t) {
		rule, ok := layout[dir]
		if !ok {
			t.Errorf("package %s is not in the layout: name it, with what it may import and why", dir)
			continue
		}
		for name, file := range files {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			for _, imp := range file.Imports {
				checkImport(t, dir, name, imp, strings.Fields(rule.may), rule.exec, rule.reason)
			}
		}
	}
}

func checkImport(t *testing.T, dir, file string, spec *ast.ImportSpec, may []string, exec bool, reason string) {
	t.Helper()
	name, err := strconv.Unquote(spec.Path.Value)
	if err != nil {
		t.Fatal(err)
	}
	switch {
	case name == module || strings.HasPrefix(name, module+"/"):
		ours := strings.TrimPrefix(strings.TrimPrefix(name, module), "/")
		if ours == "" {
			ours = "."
		}
		if !slices.Contains(may, ours) {
			t.Errorf("%s imports %s: it may import %v, because %s", file, name, may, reason)
		}
	case name == "os/exec" && !exec:
		t.Errorf("%s imports os/exec: %s may not start programs, because %s", file, dir, reason)
	}
	for prefix, where := range confined {
		if (name == prefix || strings.HasPrefix(name, prefix+"/") && prefix != "log") &&
			!slices.Contains(strings.Fields(where), dir) {
			t.Errorf("%s imports %s, which belongs to [%s] alone", file, name, where)
		}
	}
}

func TestEveryPackageSaysWhatItIsForAndMustNotKnow(t *testing.T) {
	for dir, files := range parsePackages(t) {
		doc := ""
		for _, file := range files {
			if file.Doc != nil {
				doc += file.Doc.Text()
			}
		}
		start := "Package "
		for _, file := range files {
			if file.Name.Name == "main" {
				start = "Command "
			}
		}
		if !strings.HasPrefix(doc, start) {
			t.Errorf("package %s has no doc comment that starts with %q", dir, start)
		}
		if start == "Package " && !slices.ContainsFunc([]string{"must not", "contains no", "imports nothing",
			"knows nothing"}, func(s string) bool { return strings.Contains(strings.Join(strings.Fields(doc), " "), s) }) {
			t.Errorf("the doc comment of %s does not say what the package must not know", dir)
		}
	}
}

var fset = token.NewFileSet()

// parsePackages returns all Go files of the module by directory and path.
func parsePackages(t *testing.T) map[string]map[string]*ast.File {
	t.Helper()
	packages := map[string]map[string]*ast.File{}
	err := filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		hidden := strings.HasPrefix(d.Name(), ".") && name != "."
		if d.IsDir() && (hidden || slices.Contains([]string{"testdata", "bin", "node_modules"}, d.Name())) {
			return filepath.SkipDir
		}
		if path.Ext(name) != ".go" {
			return nil
		}
		file, err := parser.ParseFile(fset, name, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		dir := path.Dir(filepath.ToSlash(name))
		if packages[dir] == nil {
			packages[dir] = map[string]*ast.File{}
		}
		packages[dir][name] = file
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(packages) < 10 {
		t.Fatalf("only %d packages found: the test looks in the wrong place", len(packages))
	}
	return packages
}

// TestEveryPermissionIsUsed checks that the layout allows no import that no file of the package makes.
func TestEveryPermissionIsUsed(t *testing.T) {
	for dir, files := range parsePackages(t) {
		used := map[string]bool{}
		for _, file := range files {
			for _, imp := range file.Imports {
				name, err := strconv.Unquote(imp.Path.Value)
				if err != nil {
					t.Fatal(err)
				}
				if name == module {
					used["."] = true
				}
				used[strings.TrimPrefix(name, module+"/")] = true
			}
		}
		for _, may := range strings.Fields(layout[dir].may) {
			if !used[may] {
				t.Errorf("%s may import %s, and does not", dir, may)
			}
		}
	}
}
