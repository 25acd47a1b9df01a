package banger_test

import (
	"go/ast"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"
)

// These bounds limit what a reader must hold in mind at once.
const (
	maxPackage   = 2500 // lines without tests
	maxInterface = 8    // methods
	maxType      = 40   // methods
)

// large lists what still exceeds a bound, with its own limit. A limit may only go down. An entry that comes within
// its bound leaves the table.
var large = map[string]int{}

func TestPackagesTypesAndInterfacesStaySmall(t *testing.T) {
	for dir, files := range parsePackages(t) {
		lines, methods := 0, map[string]int{}
		for name, file := range files {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			lines += fset.File(file.Pos()).LineCount()
			ast.Inspect(file, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.FuncDecl:
					if n.Recv != nil {
						methods[receiver(n.Recv.List[0].Type)]++
					}
				case *ast.TypeSpec:
					if i, ok := n.Type.(*ast.InterfaceType); ok && i.Methods.NumFields() > maxInterface {
						t.Errorf("%s: interface %s has %d methods", dir, n.Name.Name, i.Methods.NumFields())
					}
				}
				return true
			})
		}
		within(t, dir, lines, maxPackage, "lines")
		for name, n := range methods {
			within(t, dir+" "+name, n, maxType, "methods")
		}
	}
}

// receiver returns the name of a method's type.
func receiver(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.StarExpr:
		return receiver(e.X)
	case *ast.IndexExpr:
		return receiver(e.X)
	case *ast.Ident:
		return e.Name
	}
	return "?"
}

func within(t *testing.T, what string, n, bound int, unit string) {
	t.Helper()
	if more, ok := large[what]; ok {
		if n <= bound {
			t.Errorf("%s has %d %s now: take it out of the table", what, n, unit)
		}
		bound = more
	}
	if n > bound {
		t.Errorf("%s has %d %s, over %d: ask what it is really two of", what, n, unit, bound)
	}
}

// closures lists packages that a process must not contain, directly or through other imports.
var closures = map[string]struct{ free, reason string }{
	"./cmd/banger-agent": {
		"modernc.org/sqlite banger/internal/store banger/internal/registry banger/internal/image github.com/google/go-containerregistry banger/internal/vmm/qemu banger/internal/vmm/firecracker",
		"the agent is in every guest"},
	"./internal/shim/server": {
		"modernc.org/sqlite banger/internal/store banger/internal/registry banger/internal/image github.com/google/go-containerregistry",
		"a shim knows one VM"},
	"./internal/supervisor": {"github.com/elastic/go-seccomp-bpf github.com/landlock-lsm gvisor.dev",
		"the supervisor decides, and other processes carry it out"},
}

func TestWhatProcessesDoNotContain(t *testing.T) {
	for root, rule := range closures {
		out, err := exec.Command("go", "list", "-deps", root).Output()
		if err != nil {
			t.Fatal(err)
		}
		for name := range strings.FieldsSeq(string(out)) {
			for free := range strings.FieldsSeq(rule.free) {
				if name == free || strings.HasPrefix(name, free+"/") {
					t.Errorf("%s contains %s, because something that it imports does; but %s", root, name, rule.reason)
				}
			}
		}
	}
}

// maxColumns is the longest line of Go, in characters; a tab is one, as golangci-lint counts.
const maxColumns = 120

// TestLinesStayNarrow allows longer lines only where tests hold a long string of others.
func TestLinesStayNarrow(t *testing.T) {
	literal := regexp.MustCompile("\"(?:[^\"\\\\]|\\\\.){60,}\"|`[^`]{60,}")
	for dir, files := range parsePackages(t) {
		forTests := strings.HasPrefix(dir, "internal/testing/") || strings.HasPrefix(dir, "bench")
		for name := range files {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			n := 0
			for line := range strings.Lines(string(text)) {
				n++
				line = strings.TrimRight(line, "\n")
				if utf8.RuneCountInString(line) <= maxColumns {
					continue
				}
				if (forTests || strings.HasSuffix(name, "_test.go")) && literal.MatchString(line) {
					continue
				}
				t.Errorf("%s:%d has %d characters", name, n, utf8.RuneCountInString(line))
			}
		}
	}
}

// long lists functions that may exceed 60 lines, each for a measured reason.
var long = map[string]string{
	"internal/inflate/fast.go": "fast", // a call in its loop costs registers, and makes every pull a twentieth slower
}

func TestFilesAndFunctionsStayReadable(t *testing.T) {
	for _, files := range parsePackages(t) {
		for name, file := range files {
			if lines := fset.File(file.Pos()).LineCount(); lines > 500 {
				t.Errorf("%s has %d lines: ask what it is really two of", name, lines)
			}
			for _, d := range file.Decls {
				f, ok := d.(*ast.FuncDecl)
				if !ok || strings.HasSuffix(name, "_test.go") {
					continue
				}
				if n := fset.Position(f.End()).Line - fset.Position(f.Pos()).Line + 1; n > 60 && long[name] != f.Name.Name {
					t.Errorf("%s: %s has %d lines: ask what it is really two of", name, f.Name.Name, n)
				}
			}
		}
	}
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
