package e2e

import (
	"archive/tar"
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/rogpeppe/go-internal/testscript"
)

// htpasswd is a user banger with the password secret (bcrypt).
const htpasswd = "banger:$2b$04$mAV7EOcfh574544yNqJ14ui467eCMtINSDmSHOroWpI5FPVUZpKFm\n"

// registry starts Debian's docker-registry on a free port of loopback and sets $REGISTRY; `registry
// stop` ends it. With `auth` it requires the user banger with the password secret.
func cmdRegistry(ts *testscript.TestScript, neg bool, args []string) {
	refuse(ts, neg, len(args) > 1, "registry [auth|stop]")
	auth := ""
	switch {
	case len(args) == 1 && args[0] == "stop":
		theWorld(ts).stopRegistry()
		return
	case len(args) == 1:
		passwords := ts.MkAbs("htpasswd")
		ts.Check(os.WriteFile(passwords, []byte(htpasswd), 0o644))
		auth = "auth:\n  htpasswd:\n    realm: banger\n    path: " + passwords + "\n"
	}
	dir := ts.MkAbs("registry")
	config := filepath.Join(ts.MkAbs("."), "registry.yml")
	ts.Check(
		os.WriteFile(config,
			[]byte(
				fmt.Sprintf(
					"version: 0.1\nlog:\n  level: info\nstorage:\n  filesystem:\n    rootdirectory: %s\nhttp:\n  addr: 127.0.0.1:0\n%s", dir, auth)), 0o644))
	cmd := exec.Command("docker-registry", "serve", config)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stderr, err := cmd.StderrPipe()
	ts.Check(err)
	cmd.Stdout = cmd.Stderr
	ts.Check(cmd.Start())
	w := theWorld(ts)
	w.stopRegistry = sync.OnceFunc(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	ts.Defer(w.stopRegistry)
	addr := ""
	sc := bufio.NewScanner(stderr)
	for sc.Scan() {
		if _, rest, ok := strings.Cut(sc.Text(), "listening on "); ok {
			addr, _, _ = strings.Cut(rest, `"`)
			break
		}
	}
	if addr == "" {
		ts.Fatalf("docker-registry did not say where it listens")
	}
	go io.Copy(io.Discard, stderr) // ends with the process
	ts.Setenv("REGISTRY", addr)
	_, port, _ := strings.Cut(addr, ":")
	ts.Setenv("REGISTRYPORT", port)
}

// silent listens on a free port of loopback, sets $SILENT to HOST:PORT, and never answers.
func cmdSilent(ts *testscript.TestScript, neg bool, args []string) {
	refuse(ts, neg, len(args) != 0, "silent")
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	ts.Defer(func() { ln.Close() }) // the kernel takes connections as long as it is open
	ts.Setenv("SILENT", ln.Addr().String())
}

// mkimage KIND WHERE makes one of the test images and puts it somewhere:
//
//	mkimage layers REF|oci:DIR|docker-archive:FILE   three layers with whiteouts
//	mkimage scratch ...                              one static binary, nothing else
//	mkimage foreign ...                              the same, for another machine
//	mkimage odd ...                                  directories where others could not boot
//	mkimage databases ...                            Debian with PostgreSQL and SQLite
func cmdMkimage(ts *testscript.TestScript, neg bool, args []string) {
	refuse(ts, neg, len(args) != 2, "mkimage layers|scratch|foreign|odd|databases WHERE")
	var img v1.Image
	var err error
	switch args[0] {
	case "layers":
		img, err = layersImage(ts.MkAbs("."))
	case "scratch":
		img, err = scratchImage(ts.MkAbs("."))
	case "odd":
		img, err = oddImage(ts.MkAbs("."))
	case "databases":
		img, err = databasesImage(ts.MkAbs("."))
	case "foreign":
		if img, err = scratchImage(ts.MkAbs(".")); err == nil {
			img, err = forMachine(img, "s390x")
		}
	default:
		ts.Fatalf("no image kind %q", args[0])
	}
	ts.Check(err)
	kind, where, _ := strings.Cut(args[1], ":")
	switch kind {
	case "oci":
		p, err := layout.Write(ts.MkAbs(where), empty.Index)
		ts.Check(err)
		ts.Check(p.AppendImage(img))
	case "docker-archive":
		ref, err := name.NewTag("example.test/" + args[0] + ":v1")
		ts.Check(err)
		ts.Check(tarball.WriteToFile(ts.MkAbs(where), ref, img))
	default:
		ref, err := name.ParseReference(args[1], name.Insecure)
		ts.Check(err)
		ts.Check(remote.Write(ref, img))
	}
}

type entry struct {
	tar.Header
	data string
}

func layerOf(entries ...entry) (v1.Layer, error) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, e := range entries {
		h := e.Header
		h.Size = int64(len(e.data))
		if h.Mode == 0 {
			h.Mode = map[bool]int64{true: 0o755, false: 0o644}[h.Typeflag == tar.TypeDir]
		}
		if h.ModTime.IsZero() {
			h.ModTime = time.Unix(1_700_000_000, 0)
		}
		if h.PAXRecords != nil {
			h.Format = tar.FormatPAX
		}
		if err := w.WriteHeader(&h); err != nil {
			return nil, err
		}
		if _, err := io.WriteString(w, e.data); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(buf.Bytes())), nil
	})
}

func imageOf(config v1.Config, layers ...v1.Layer) (v1.Image, error) {
	img, err := mutate.AppendLayers(empty.Image, layers...)
	if err != nil {
		return nil, err
	}
	file, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	file = file.DeepCopy()
	file.OS, file.Architecture, file.Config = "linux", "amd64", config
	return mutate.ConfigFile(img, file)
}

func dir(name string) entry { return entry{Header: tar.Header{Name: name, Typeflag: tar.TypeDir}} }
func file(name, data string) entry {
	return entry{Header: tar.Header{Name: name, Typeflag: tar.TypeReg}, data: data}
}

// layersImage has busybox, and three layers that add, replace, hide and reveal.
func layersImage(work string) (v1.Image, error) {
	probe, err := buildProbe(work)
	if err != nil {
		return nil, err
	}
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		return nil, fmt.Errorf("the stories need the package busybox-static: %w", err)
	}
	bin := []entry{dir("bin"), dir("etc"), {Header: tar.Header{Name: "tmp", Typeflag: tar.TypeDir, Mode: 0o1777}},
		{Header: tar.Header{Name: "bin/busybox", Typeflag: tar.TypeReg, Mode: 0o755}, data: string(busybox)}}
	for _, tool := range strings.Fields("sh cat ls stat id env pwd echo test find true false sleep kill readlink mount") {
		bin = append(bin, entry{Header: tar.Header{Name: "bin/" + tool, Typeflag: tar.TypeSymlink, Linkname: "busybox"}})
	}
	base := append(bin,
		file("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nworker:x:1234:1234::/home/worker:/bin/sh\n"),
		file("etc/group", "root:x:0:\nworker:x:1234:\nextra:x:77:worker\n"),
		dir("home"),
		entry{Header: tar.Header{Name: "home/worker", Typeflag: tar.TypeDir, Mode: 0o700, Uid: 1234, Gid: 1234}},
		dir("data"), file("data/kept", "kept\n"), file("data/removed", "x"), file("data/replaced", "old\n"),
		dir("hidden"), file("hidden/old", "x"), dir("hidden/deep"), file("hidden/deep/old", "x"),
		dir("gone"), file("gone/file", "x"),
		entry{Header: tar.Header{Name: "bin/setuid", Typeflag: tar.TypeReg, Mode: 0o4755}, data: probe},
		entry{Header: tar.Header{Name: "data/owned", Typeflag: tar.TypeReg, Mode: 0o640, Uid: 1234, Gid: 77}, data: "o"},
		entry{Header: tar.Header{Name: "data/hard", Typeflag: tar.TypeLink, Linkname: "data/kept"}},
		entry{
			Header: tar.Header{
				Name:       "data/labelled",
				Typeflag:   tar.TypeReg,
				PAXRecords: map[string]string{"SCHILY.xattr.user.colour": "blue"},
			},
			data: "l",
		},
		entry{Header: tar.Header{Name: "data/null", Typeflag: tar.TypeChar, Mode: 0o666, Devmajor: 1, Devminor: 3}},
	)
	second := []entry{
		file("data/.wh.removed", ""), file("data/replaced", "new\n"),
		dir("hidden"), file("hidden/.wh..wh..opq", ""), file("hidden/new", "n"),
		file(".wh.gone", ""),
	}
	third := []entry{file("data/removed", "back\n")}
	var layers []v1.Layer
	for _, l := range [][]entry{base, second, third} {
		layer, err := layerOf(l...)
		if err != nil {
			return nil, err
		}
		layers = append(layers, layer)
	}
	return imageOf(v1.Config{
		Entrypoint: []string{"/bin/sh", "-c"}, Cmd: []string{"echo default command"},
		Env: []string{"PATH=/bin", "COLOUR=red", "SIZE=big"}, WorkingDir: "/data", User: "worker", StopSignal: "SIGUSR1",
	}, layers...)
}

// forMachine marks an image as one for another architecture.
func forMachine(img v1.Image, arch string) (v1.Image, error) {
	file, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	file = file.DeepCopy()
	file.Architecture = arch
	return mutate.ConfigFile(img, file)
}

// probeSource is a program that prints what only a system call can show.
const probeSource = `package main

import (
	"fmt"
	"os"
	"syscall"
)

func main() {
	for len(os.Args) == 2 && os.Args[1] == "wait" {
		syscall.Pause()
	}
	if len(os.Args) == 3 {
		value := make([]byte, 100)
		n, err := syscall.Getxattr(os.Args[1], os.Args[2], value)
		fmt.Println(string(value[:max(n, 0)]), err)
		return
	}
	host, _ := os.Hostname()
	fmt.Println("hello from", host, "as", os.Geteuid(), "real", os.Getuid(), "pid 1:", os.Getpid() == 1)
}
`

// buildProbe compiles probeSource into a static binary.
func buildProbe(work string) (string, error) {
	src, bin := filepath.Join(work, "probe.go"), filepath.Join(work, "probe")
	if err := os.WriteFile(src, []byte(probeSource), 0o644); err != nil {
		return "", err
	}
	cmd := exec.Command("go", "build", "-o", bin, src)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GO111MODULE=off", "GOFLAGS=",
		"GOCACHE="+filepath.Join(os.Getenv("TMPDIR"), "gocache"))
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	data, err := os.ReadFile(bin)
	return string(data), err
}

// scratchImage returns an image with one static binary and nothing else, not even a directory.
func scratchImage(work string) (v1.Image, error) {
	probe, err := buildProbe(work)
	if err != nil {
		return nil, err
	}
	layer, err := layerOf(entry{Header: tar.Header{Name: "hello", Typeflag: tar.TypeReg, Mode: 0o755}, data: probe})
	if err != nil {
		return nil, err
	}
	return imageOf(v1.Config{Entrypoint: []string{"/hello"}}, layer)
}
