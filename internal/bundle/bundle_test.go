package bundle

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"banger"
	"banger/internal/recipe"
)

// packed returns a gzipped tar of entries.
func packed(t *testing.T, list ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	for _, h := range list {
		content := h.Uname // what the file has in it
		h.Uname, h.Size = "", int64(len(content))
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, content); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// web is a server with files at paths, which counts what it is asked.
type web struct {
	*httptest.Server
	files map[string][]byte
	asked []string
}

func newWeb(t *testing.T) *web {
	w := &web{files: map[string][]byte{}}
	w.Server = httptest.NewServer(http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		w.asked = append(w.asked, r.URL.Path)
		body, ok := w.files[r.URL.Path]
		if !ok {
			http.NotFound(out, r)
			return
		}
		out.Write(body)
	}))
	t.Cleanup(w.Close)
	return w
}

func (w *web) store(t *testing.T) Store {
	return Store{Dir: filepath.Join(t.TempDir(), "packages"), NPM: NPMOf([]string{"NPM_CONFIG_REGISTRY=" + w.URL}, "")}
}

// tool adds a package of npm, and returns a recipe for it.
func (w *web) tool(t *testing.T) recipe.Recipe {
	body := packed(t,
		tar.Header{Name: "package/package.json", Mode: 0o600, Uname: "{}"},
		tar.Header{Name: "package/cli.js", Mode: 0o644, Uname: "#!/usr/bin/env node\n"},
		tar.Header{Name: "package/bin/tool", Mode: 0o700, Uname: "tool"},
		tar.Header{Name: "package/evil", Typeflag: tar.TypeSymlink, Linkname: "/etc/passwd"})
	w.files["/@acme/tool/-/tool-1.2.3.tgz"] = body
	sum := sha512.Sum512(body)
	return recipe.Recipe{
		Command: []string{"tool"},
		Bin:     map[string]string{"tool": "node_modules/@acme/tool/cli.js"},
		Packages: []recipe.Package{{Name: "@acme/tool", Version: "1.2.3", Path: "node_modules/@acme/tool",
			Integrity: "sha512-" + base64.StdEncoding.EncodeToString(sum[:])}},
	}
}

// TestALayerHasWhatTheRecipeNames checks names, modes and links, and that the same recipe makes the same bytes without
// another request.
func TestALayerHasWhatTheRecipeNames(t *testing.T) {
	w := newWeb(t)
	r, s := w.tool(t), w.store(t)
	w.files["/more.tgz"] = packed(t, tar.Header{Name: "more-1.0/lib/so", Mode: 0o755, Uname: "so"})
	sum := sha256.Sum256(w.files["/more.tgz"])
	r.Archives = []recipe.Archive{{URL: w.URL + "/more.tgz", SHA256: hex.EncodeToString(sum[:]), Path: "more"}}
	var first, second bytes.Buffer
	for _, b := range []*bytes.Buffer{&first, &second} {
		if err := s.Layer(context.Background(), r, "/opt/x", b, banger.Discard); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Error("the second layer differs")
	}
	if want := []string{"/@acme/tool/-/tool-1.2.3.tgz", "/more.tgz"}; !reflect.DeepEqual(w.asked, want) {
		t.Errorf("the server was asked for %q", w.asked)
	}
	var got []string
	for in := tar.NewReader(&first); ; {
		h, err := in.Next()
		if err != nil {
			break
		}
		line := h.FileInfo().Mode().String() + " " + h.Name
		if h.Linkname != "" {
			line += " -> " + h.Linkname
		}
		if h.Uid != 0 || h.Gid != 0 || !h.ModTime.Equal(epoch) {
			line += " of somebody, sometime"
		}
		got = append(got, line)
	}
	want := []string{
		"drwxr-xr-x opt/x/",
		"drwxr-xr-x opt/x/node_modules/",
		"drwxr-xr-x opt/x/node_modules/@acme/",
		"drwxr-xr-x opt/x/node_modules/@acme/tool/",
		"-rw-r--r-- opt/x/node_modules/@acme/tool/package.json",
		"-rwxr-xr-x opt/x/node_modules/@acme/tool/cli.js",
		"drwxr-xr-x opt/x/node_modules/@acme/tool/bin/",
		"-rwxr-xr-x opt/x/node_modules/@acme/tool/bin/tool",
		"drwxr-xr-x opt/x/more/",
		"drwxr-xr-x opt/x/more/lib/",
		"-rwxr-xr-x opt/x/more/lib/so",
		"Lrwxrwxrwx usr/local/bin/tool -> /opt/x/node_modules/@acme/tool/cli.js",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("the layer has\n%s\nbut should have\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestAFileThatIsNotWhatItsHashSays checks that such a file is refused, on the way and in the store.
func TestAFileThatIsNotWhatItsHashSays(t *testing.T) {
	w := newWeb(t)
	r, s := w.tool(t), w.store(t)
	ctx := context.Background()
	f, err := s.Package(ctx, r.Packages[0], banger.Discard)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	path := "/@acme/tool/-/tool-1.2.3.tgz"
	good := w.files[path]
	if err := os.WriteFile(f.Name(), []byte("changed in the store"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.files[path] = []byte("changed on the way")
	if _, err := s.Package(ctx, r.Packages[0], banger.Discard); banger.CodeOf(err) != banger.CodeUnavailable ||
		!strings.Contains(err.Error(), "is not what its hash says") {
		t.Errorf("the error is %v", err)
	}
	w.files[path] = good
	if f, err = s.Package(ctx, r.Packages[0], banger.Discard); err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if body, err := io.ReadAll(f); err != nil || !bytes.Equal(body, good) {
		t.Errorf("the file has %d bytes, %v", len(body), err)
	}
}

// TestWhatCannotBeFetched checks the errors that a user sees, and that nothing is left in the store.
func TestWhatCannotBeFetched(t *testing.T) {
	w := newWeb(t)
	r, s := w.tool(t), w.store(t)
	away := Store{Dir: s.Dir, NPM: NPMOf([]string{"npm_config_registry=http://127.0.0.1:1"}, "")}
	missing := r
	missing.Packages = []recipe.Package{r.Packages[0]}
	missing.Packages[0].Version = "9.9.9"
	escapes, absent := r, r
	body := packed(t, tar.Header{Name: "../../etc/passwd", Uname: "root"})
	w.files["/evil.tgz"] = body
	sum := sha256.Sum256(body)
	escapes.Archives = []recipe.Archive{{URL: w.URL + "/evil.tgz", SHA256: hex.EncodeToString(sum[:]), Path: "evil"}}
	absent.Bin = map[string]string{"tool": "node_modules/@acme/tool/none"}
	for _, c := range []struct {
		name  string
		store Store
		r     recipe.Recipe
		want  string
	}{
		{"no server", away, r, "cannot fetch @acme/tool 1.2.3 from http://127.0.0.1:1/@acme/tool/-/tool-1.2.3.tgz: "},
		{"no such version", s, missing, "the server answers 404"},
		{"a name that leads out", s, escapes, "leads out of it"},
		{"a command without a file", s, absent, "but no package has that file"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := c.store.Layer(context.Background(), c.r, "/opt/x", io.Discard, banger.Discard)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("the error is %v", err)
			}
		})
	}
	list, err := os.ReadDir(s.Dir)
	for _, e := range list {
		if !strings.HasSuffix(e.Name(), ".lock") && len(e.Name()) < 64 {
			t.Errorf("%s is left", e.Name())
		}
	}
	if err != nil {
		t.Error(err)
	}
}

// TestTheRegistryIsThatOfNPM checks which registry is asked, by npm's files and variables.
func TestTheRegistryIsThatOfNPM(t *testing.T) {
	npmrc := filepath.Join(t.TempDir(), ".npmrc")
	text := "; a comment\nregistry = https://mirror.example/npm\n@acme:registry=https://acme.example\n//m/:_auth=x\n"
	if err := os.WriteFile(npmrc, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		environ []string
		npmrc   string
		name    string
		want    string
	}{
		{nil, "", "tool", publicNPM + "tool/-/tool-1.0.0.tgz"},
		{nil, npmrc, "tool", "https://mirror.example/npm/tool/-/tool-1.0.0.tgz"},
		{nil, npmrc, "@acme/tool", "https://acme.example/@acme/tool/-/tool-1.0.0.tgz"},
		{[]string{"NPM_CONFIG_REGISTRY=http://127.0.0.1:1/"}, npmrc, "tool", "http://127.0.0.1:1/tool/-/tool-1.0.0.tgz"},
		{[]string{"npm_config_registry=file:///etc"}, "", "tool", publicNPM + "tool/-/tool-1.0.0.tgz"},
	} {
		if got := NPMOf(c.environ, c.npmrc).Tarball(c.name, "1.0.0"); got != c.want {
			t.Errorf("%v with %q: %s", c.environ, c.npmrc, got)
		}
	}
}
