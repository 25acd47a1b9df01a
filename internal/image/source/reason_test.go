package source

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"banger"
	"banger/internal/blob"
)

// goWords are words that only Go's libraries use.
var goWords = regexp.MustCompile(`json|gzip:|zstd|archive/tar|EOF|dial unix|open /|invalid character|unmarshal|` +
	`file does not exist|v1\.|hash:|parsing|struct|connect:|read /`)

// tarOf returns a tar of files, given as name and content in turn.
func tarOf(t *testing.T, files ...string) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for i := 0; i < len(files); i += 2 {
		h := &tar.Header{Name: files[i], Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(files[i+1]))}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(files[i+1])); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func gzipped(t *testing.T, p []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	w.Write(p)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// TestBadSourcesInOurWords checks the errors for what cannot be an image: they say what is wrong, and have no words of
// a library.
func TestBadSourcesInOurWords(t *testing.T) {
	dir := t.TempDir()
	put := func(name string, data []byte) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	whole := tarOf(t, "manifest.json", strings.Repeat("x", 2000))
	ln, err := net.Listen("unix", filepath.Join(dir, "left.sock"))
	if err != nil {
		t.Fatal(err)
	}
	ln.(*net.UnixListener).SetUnlinkOnClose(false)
	ln.Close()
	t.Setenv("DOCKER_HOST", "unix://"+filepath.Join(dir, "left.sock"))
	const digest = "sha256:0000000000000000000000000000000000000000000000000000000000000000"
	archive := func(name string, data []byte) string { return "docker-archive:" + put(name, data) }
	layout := func(name, index string) string { return "oci:" + filepath.Dir(put(name+"/index.json", []byte(index))) }
	for name, c := range map[string]struct{ ref, want string }{
		"no such archive":   {"docker-archive:" + dir + "/none", dir + "/none: no such file or directory"},
		"no tar":            {archive("text", bytes.Repeat([]byte("text "), 500)), "it is not a tar"},
		"a short text":      {archive("short", []byte("text")), "it ends too early"},
		"a cut tar":         {archive("cut", whole[:700]), ""},
		"a cut gzip":        {archive("cut.gz", gzipped(t, whole)[:40]), ""},
		"an empty tar":      {archive("empty", tarOf(t)), "there is no manifest.json"},
		"no JSON":           {archive("junk", tarOf(t, "manifest.json", "[{")), "manifest.json: it is not JSON"},
		"other JSON":        {archive("kind", tarOf(t, "manifest.json", `[{"Config":1}]`)), `"Config" has a number`},
		"no config":         {archive("lone", tarOf(t, "manifest.json", `[{"Config":"c"}]`)), "there is no c"},
		"no layout":         {"oci:" + dir + "/none", dir + "/none/index.json: no such file or directory"},
		"a layout of junk":  {layout("junk.d", "junk"), "index.json of the OCI layout is not valid"},
		"a digest of junk":  {layout("hash.d", `{"manifests":[{"digest":"md5:x"}]}`), "another form"},
		"no manifest":       {layout("none.d", `{"manifests":[{"digest":"`+digest+`"}]}`), "no such file or directory"},
		"nobody at docker":  {"docker-daemon:a", "cannot reach docker-daemon on " + dir + "/left.sock: connection refused"},
		"no archive of OCI": {"oci-archive:" + put("text2", []byte("text")), "cannot read the OCI archive"},
	} {
		t.Run(name, func(t *testing.T) {
			blobs, err := blob.OpenStore(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			f := Finder{Blobs: blobs, Temp: t.TempDir()}
			p, err := ParsePlatform("")
			if err != nil {
				t.Fatal(err)
			}
			src, err := f.Find(context.Background(), c.ref, p, banger.Discard)
			if err == nil {
				src.Close()
				t.Fatal("it is an image")
			}
			if !strings.Contains(err.Error(), c.want) || goWords.MatchString(strings.ReplaceAll(err.Error(), ".json", "")) ||
				banger.CodeOf(err) == banger.CodeInternal {
				t.Errorf("the error is %v (%s)", err, banger.CodeOf(err))
			}
		})
	}
}

// TestManifestsAndConfigsInOurWords checks the same for what a registry sends.
func TestManifestsAndConfigsInOurWords(t *testing.T) {
	for _, text := range []string{"", "{", `{"config":1}`, `{"layers":[{"digest":"md5:x"}]}`, `{"manifests":{}}`, "[]"} {
		if _, err := parseManifest([]byte(text)); err == nil || goWords.MatchString(err.Error()) {
			t.Errorf("%s: the error is %v", text, err)
		}
	}
	for _, text := range []string{"", "{", `{"created":"soon"}`, `{"rootfs":{"diff_ids":["x"]}}`, `{"os":1}`} {
		if _, err := fromConfig(nil, nil, &envelope{}, []byte(text)); err == nil || goWords.MatchString(err.Error()) {
			t.Errorf("%s: the error is %v", text, err)
		}
	}
}
