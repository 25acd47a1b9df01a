package image

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"runtime"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"banger"
)

// when is the default time of entries.
var when = time.Unix(1700000000, 0)

// entry is one entry of a layer's tar, with its content.
type entry struct {
	tar.Header
	content string
}

func file(name, content string) entry {
	return entry{tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644}, content}
}

func dir(name string) entry {
	return entry{tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o755}, ""}
}

func symlink(name, target string) entry {
	return entry{tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777}, ""}
}

func hardLink(name, target string) entry {
	return entry{tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: target, Mode: 0o644}, ""}
}

// tarOf returns a layer as a plain tar.
func tarOf(entries ...entry) []byte {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, e := range entries {
		h := e.Header
		h.Size = int64(len(e.content))
		h.Format = tar.FormatPAX
		if h.ModTime.IsZero() {
			h.ModTime = when
		}
		if err := w.WriteHeader(&h); err != nil {
			panic(err)
		}
		io.WriteString(w, e.content)
	}
	w.Close()
	return buf.Bytes()
}

func gzipped(p []byte) []byte {
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	w.Write(p)
	w.Close()
	return buf.Bytes()
}

func zstded(p []byte) []byte {
	w, err := zstd.NewWriter(nil)
	if err != nil {
		panic(err)
	}
	return w.EncodeAll(p, nil)
}

// layerBlob is one layer as an image stores it. The digests for the manifest and the config may be
// wrong.
type layerBlob struct {
	data, diffID, digest string
}

// plain, packed and similar functions make valid blobs.
func plain(entries ...entry) layerBlob {
	p := tarOf(entries...)
	return layerBlob{string(p), digestBytes(p), digestBytes(p)}
}

func packed(pack func([]byte) []byte, entries ...entry) layerBlob {
	p := tarOf(entries...)
	return layerBlob{string(pack(p)), digestBytes(p), digestBytes(pack(p))}
}

// stored returns a blob of arbitrary bytes with the right digests.
func stored(data []byte) layerBlob {
	return layerBlob{string(data), digestBytes(data), digestBytes(data)}
}

// ociDir writes an OCI layout that holds one image and returns its directory.
func ociDir(t *testing.T, layers ...layerBlob) string {
	t.Helper()
	at := t.TempDir()
	if err := os.MkdirAll(filepath.Join(at, "blobs", "sha256"), 0o755); err != nil {
		t.Fatal(err)
	}
	write := func(name string, data []byte) {
		if err := os.WriteFile(filepath.Join(at, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	put := func(mediaType, digest string, data []byte) map[string]any {
		write(filepath.Join("blobs", "sha256", strings.TrimPrefix(digest, "sha256:")), data)
		return map[string]any{"mediaType": mediaType, "digest": digest, "size": len(data)}
	}
	asJSON := func(v any) []byte {
		p, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	diffIDs, descriptors := []string{}, []any{}
	for _, l := range layers {
		diffIDs = append(diffIDs, l.diffID)
		descriptors = append(descriptors, put("application/vnd.oci.image.layer.v1.tar+gzip", l.digest, []byte(l.data)))
	}
	config := asJSON(map[string]any{"os": "linux", "architecture": runtime.GOARCH,
		"config": map[string]any{"Cmd": []string{"/bin/sh"}, "Env": []string{"A=1"}, "User": "7", "WorkingDir": "/w"},
		"rootfs": map[string]any{"type": "layers", "diff_ids": diffIDs}})
	manifest := asJSON(map[string]any{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
		"config": put("application/vnd.oci.image.config.v1+json", digestBytes(config), config), "layers": descriptors})
	d := put("application/vnd.oci.image.manifest.v1+json", digestBytes(manifest), manifest)
	d["annotations"] = map[string]string{"org.opencontainers.image.ref.name": "tag"}
	write("index.json", asJSON(map[string]any{"schemaVersion": 2, "manifests": []any{d}}))
	write("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`))
	return at
}

// ociTar packs an OCI layout as `skopeo copy … oci-archive:` does.
func ociTar(t *testing.T, layout string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image.tar")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := tar.NewWriter(f)
	if err := w.AddFS(os.DirFS(layout)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

// read returns the image of an OCI layout for the library's writers.
func read(t *testing.T, dir string) v1.Image {
	t.Helper()
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	img, err := index.Image(manifest.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// serve starts a registry that holds the image as test/image:tag and returns the
// reference. Requests of readers pass through gate first.
func serve(t *testing.T, img v1.Image, gate func(*http.Request)) string {
	t.Helper()
	reg := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	open := false
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if open {
			gate(r)
		}
		reg.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	ref := strings.TrimPrefix(server.URL, "http://") + "/test/image:tag"
	tag, err := name.NewTag(ref)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(tag, img); err != nil {
		t.Fatal(err)
	}
	open = gate != nil
	return ref
}

func openStore(t *testing.T) *Store {
	t.Helper()
	s, err := Open(filepath.Join(t.TempDir(), "images"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func ensure(t *testing.T, s *Store, ref string) banger.Image {
	t.Helper()
	img, err := s.Ensure(context.Background(), ref, "", banger.PullMissing, banger.Discard)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// convert returns the listing of an image made of the layers. It checks the image with e2fsck.
func convert(t *testing.T, layers ...layerBlob) string {
	t.Helper()
	s := openStore(t)
	img := ensure(t, s, "oci:"+ociDir(t, layers...))
	fsck(t, s.RootfsPath(img.Digest))
	return listing(t, s.RootfsPath(img.Digest))
}

func fsck(t *testing.T, path string) {
	t.Helper()
	out, err := exec.Command("/sbin/e2fsck", "-fn", path).CombinedOutput()
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if err != nil || len(lines) != 7 { // version, five passes, the summary
		t.Fatalf("e2fsck: %v\n%.3000s", err, out)
	}
}

// debugfs runs commands on an ext4 file and returns what each of them printed.
func debugfs(t *testing.T, path string, commands []string) []string {
	t.Helper()
	cmd := exec.Command("/sbin/debugfs", "-f", "-", path)
	cmd.Stdin = strings.NewReader(strings.Join(commands, "\n") + "\n")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("debugfs: %v", err)
	}
	var answers []string
	rest := string(out)
	for i, c := range commands {
		_, after, ok := strings.Cut(rest, "debugfs: "+c+"\n")
		if !ok {
			t.Fatalf("debugfs did not echo %q in %.500q", c, rest)
		}
		rest = after
		answer := rest
		if i+1 < len(commands) {
			answer, _, _ = strings.Cut(rest, "debugfs: "+commands[i+1]+"\n")
		}
		answers = append(answers, answer)
	}
	return answers
}

var (
	statRE  = regexp.MustCompile(`(?s)Inode: (\d+)\s+Type: (\S+( \S+)?)\s+Mode:\s+(\d+).*User:\s+(-?\d+)\s+Group:\s+(-?\d+).* mtime: 0x([0-9a-f]+):([0-9a-f]+)`)
	lsRE    = regexp.MustCompile(`(?m)^/\d+/\d+/-?\d+/-?\d+/([^/]+)/`)
	fastRE  = regexp.MustCompile(`Fast link dest: "(.*)"`)
	devRE   = regexp.MustCompile(`Device major/minor number: (\S+)`)
	xattrRE = regexp.MustCompile(`(?m)^  ((?:user|security|trusted|system)\.\S+ \(\d+\).*)$`)
)

// listing describes every file of an ext4 image, sorted, one line each: path, type, mode, owner,
// and what is unusual.
func listing(t *testing.T, image string) string {
	t.Helper()
	var lines []string
	first := map[string]string{} // inode -> path
	for level := []string{"/"}; len(level) > 0; {
		var commands, below []string
		for _, p := range level {
			commands = append(commands, fmt.Sprintf("stat %q", p), fmt.Sprintf("ls -p %q", p), fmt.Sprintf("cat %q", p))
		}
		answers := debugfs(t, image, commands)
		for i, p := range level {
			stat, ls, content := answers[3*i], answers[3*i+1], answers[3*i+2]
			m := statRE.FindStringSubmatch(stat)
			if m == nil {
				t.Fatalf("debugfs says of %q: %s", p, stat)
			}
			line := fmt.Sprintf("%s %s %s %s:%s", p, strings.ReplaceAll(m[2], " ", "-"), m[4], m[5], m[6])
			if m[7] != "6553f100" || m[8] != "00000000" {
				line += " mtime=" + m[7] + ":" + m[8]
			}
			switch m[2] {
			case "directory":
				for _, child := range lsRE.FindAllStringSubmatch(ls, -1) {
					if child[1] != "." && child[1] != ".." && !(p == "/" && child[1] == "lost+found") {
						below = append(below, path.Join(p, child[1]))
					}
				}
			case "regular":
				line += fmt.Sprintf(" %q", content)
			case "symlink":
				if f := fastRE.FindStringSubmatch(stat); f != nil {
					line += " -> " + f[1]
				}
			}
			if d := devRE.FindStringSubmatch(stat); d != nil {
				line += " dev=" + d[1]
			}
			for _, x := range xattrRE.FindAllStringSubmatch(stat, -1) {
				line += " [" + x[1] + "]"
			}
			if same := first[m[1]]; same != "" && m[2] != "directory" {
				line = p + " = " + same
			} else {
				first[m[1]] = p
			}
			lines = append(lines, line)
		}
		sort.Strings(below)
		level = below
	}
	sort.Strings(lines)
	return strings.Join(lines, "\n") + "\n"
}

// wantListing compares listings. want is indented like the source.
func wantListing(t *testing.T, got, want string) {
	t.Helper()
	want = strings.TrimPrefix(strings.ReplaceAll(want, "\n\t\t", "\n"), "\n")
	if got != strings.TrimRight(want, "\t") {
		t.Errorf("the image holds\n%s\nbut should hold\n%s", got, want)
	}
}

// wantOnly fails the test unless the store has exactly these images and no trace of an unfinished
// one.
func wantOnly(t *testing.T, s *Store, digests ...string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(s.dir, "sha256"))
	if err != nil {
		t.Fatal(err)
	}
	var got, want []string
	for _, e := range entries {
		got = append(got, "sha256:"+e.Name())
	}
	want = append(want, digests...)
	sort.Strings(want)
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("the store holds %q, not %q", got, want)
	}
}
