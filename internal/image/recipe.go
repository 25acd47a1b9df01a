package image

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/klauspost/compress/gzip"

	"banger"
	"banger/internal/blob"
)

// recipe makes an image from Debian packages with the host's own apt sources. It works on a machine
// without a registry.
type recipe struct {
	suite    string
	packages []string
}

// catalogue maps bare names to recipes. A name here takes precedence over a registry's.
var catalogue = map[string]recipe{
	"debian-bookworm": {"bookworm", []string{"ca-certificates", "iproute2", "procps"}},
	"debian-bookworm-dev": {"bookworm", []string{
		"ca-certificates", "iproute2", "procps", "kmod", "git", "curl", "jq", "build-essential",
		"systemd", "systemd-sysv", "dbus", "openssh-client", "sudo", "vim-tiny", "less",
	}},
	// A host for VMs in a VM; run it with --nested. It has what banger and the tests of this repository need.
	"debian-bookworm-lab": {"bookworm", []string{
		"ca-certificates", "iproute2", "procps", "kmod", "udev", "systemd", "systemd-sysv", "libpam-systemd",
		"dbus", "dbus-user-session", "qemu-system-x86", "nftables", "e2fsprogs", "openssh-client",
		"openssh-sftp-server", "rsync", "git", "curl", "dnsmasq-base", "uidmap", "busybox-static",
		"strace", "less", "docker-registry",
	}},
}

const recipePath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// made is an image that a recipe made. Its blobs are already in the store.
type made struct {
	blobs *blob.Store
	body  []byte
}

func (m *made) close() {}

func (m *made) manifest(context.Context, string) ([]byte, error) { return m.body, nil }

func (m *made) blob(ctx context.Context, digest string, offset int64) (io.ReadCloser, error) {
	f, err := os.Open(m.blobs.Path(digest))
	if err != nil {
		return nil, permanent{err}
	}
	_, err = f.Seek(offset, io.SeekStart)
	return f, err
}

// make builds the image of a recipe: one layer, a config and a manifest.
func (s *Store) make(ctx context.Context, ref string, r recipe, emit banger.Emit) (content, error) {
	out, err := r.bootstrap(ctx, ref, s.tmpDir())
	if err != nil {
		return nil, err
	}
	defer out.Close()
	emit(banger.Event{Stage: "pull", Text: "making " + ref + " of Debian packages"})
	layer, diffID, err := s.pack(&meter{reader: &contextReader{ctx, out},
		total: &total{emit: emit, text: "making " + ref + " of Debian packages"}})
	if err != nil {
		return nil, err
	}
	id, err := v1.NewHash(diffID)
	if err != nil {
		return nil, err
	}
	now := v1.Time{Time: time.Now().UTC()}
	config, err := json.Marshal(v1.ConfigFile{
		OS:           "linux",
		Architecture: runtime.GOARCH,
		Created:      now,
		Config:       v1.Config{Cmd: []string{"/bin/bash"}, Env: []string{recipePath}},
		RootFS:       v1.RootFS{Type: "layers", DiffIDs: []v1.Hash{id}},
		History: []v1.History{{
			Created:   now,
			CreatedBy: "banger: mmdebstrap " + r.suite + " " + strings.Join(r.packages, " "),
		}},
	})
	if err != nil {
		return nil, err
	}
	digest, err := s.blobs.PutBytes(config)
	if err != nil {
		return nil, err
	}
	hash, err := v1.NewHash(digest)
	if err != nil {
		return nil, err
	}
	body, err := json.Marshal(v1.Manifest{SchemaVersion: 2, MediaType: ociManifestType,
		Config: v1.Descriptor{MediaType: ociConfigType, Size: int64(len(config)), Digest: hash},
		Layers: []v1.Descriptor{layer}})
	return &made{s.blobs, body}, err
}

// pack stores a tar as a layer and returns its descriptor and diffID. It uses the fastest
// compression, because it must not delay the program that makes the tar.
func (s *Store) pack(tarStream io.Reader) (v1.Descriptor, string, error) {
	plain := sha256.New()
	pr, pw := io.Pipe()
	go func() { // ends when the stream does, or when the store stops reading
		z, err := gzip.NewWriterLevel(pw, gzip.BestSpeed)
		if err == nil {
			if _, err = io.Copy(io.MultiWriter(plain, z), tarStream); err == nil {
				err = z.Close()
			}
		}
		pw.CloseWithError(err)
	}()
	digest, size, err := s.blobs.Put(context.Background(), pr)
	pr.CloseWithError(err)
	if err != nil {
		return v1.Descriptor{}, "", err
	}
	hash, err := v1.NewHash(digest)
	return v1.Descriptor{MediaType: ociLayerType + "+gzip", Size: size, Digest: hash}, digestOf(plain), err
}

// bootstrap starts mmdebstrap and returns its tar while it is made. For an ordinary user mmdebstrap works in a user
// namespace below $TMPDIR, and the kernel undoes its mounts. For root we give it a mount namespace for the same
// purpose: after a crash, the removal of its files must not reach the host's /proc or /dev.
func (r recipe) bootstrap(ctx context.Context, ref, dir string) (io.ReadCloser, error) {
	tool, err := exec.LookPath("mmdebstrap")
	if err != nil {
		return nil, banger.Errorf(banger.CodeUnavailable, "%s cannot be made: mmdebstrap is not installed", ref).
			WithHint("install it: apt-get install mmdebstrap")
	}
	sources, err := hostSources("/etc/apt", r.suite)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	cmd := exec.CommandContext(ctx, tool, "--variant=minbase", "--format=tar", "--include="+strings.Join(r.packages, ","),
		"--aptopt=Acquire::Languages \"none\"", "--skip=cleanup/reproducible", r.suite, "-", "-")
	cmd.Stdin = strings.NewReader(sources)
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	b := &bootstrap{}
	cmd.Stderr = &b.stderr
	// It gets its own process group, so all of it can be ended. SIGTERM, which it also gets when this
	// process dies, makes it remove what it has unpacked as users of a namespace.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if os.Geteuid() == 0 {
		if b.tmp, err = os.MkdirTemp(dir, tmpPrefix+"*"); err == nil {
			err = os.Chmod(b.tmp, 0o711) // apt downloads as its own user
		}
		if err != nil {
			cancel()
			return nil, err
		}
		cmd.SysProcAttr.Unshareflags = syscall.CLONE_NEWNS
		cmd.Env = append(cmd.Env, "TMPDIR="+b.tmp)
	}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = bootstrapGrace
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		cancel()
		return nil, errors.Join(err, b.removeTmp())
	}
	b.out = out
	b.finish = sync.OnceValue(func() error {
		if err := cmd.Wait(); err != nil {
			return banger.Errorf(banger.CodeUnavailable, "%s cannot be made: mmdebstrap failed: %.300s", ref, b.stderr.text())
		}
		return nil
	})
	b.stop = cancel
	return b, nil
}

// bootstrapGrace is how long mmdebstrap may clean up after SIGTERM.
const bootstrapGrace = 10 * time.Second

// bootstrap is a running mmdebstrap. Its methods may be called concurrently.
type bootstrap struct {
	out    io.Reader
	stderr lastLine
	finish func() error // waits for the end, and returns an error if it failed
	stop   context.CancelFunc
	tmp    string // "" if there is no directory
}

// Read returns the tar. It reports the end only after mmdebstrap has succeeded.
func (b *bootstrap) Read(p []byte) (int, error) {
	n, err := b.out.Read(p)
	if err == nil {
		return n, nil
	}
	if ferr := b.finish(); ferr != nil {
		return n, ferr
	}
	return n, io.EOF
}

// Close ends what still runs. mmdebstrap removes what it has made.
func (b *bootstrap) Close() error {
	b.stop()
	b.finish()
	return b.removeTmp()
}

func (b *bootstrap) removeTmp() error {
	if b.tmp == "" {
		return nil
	}
	return os.RemoveAll(b.tmp)
}

// lastLine keeps the end of a program's output.
type lastLine struct{ buf []byte }

func (l *lastLine) Write(p []byte) (int, error) {
	l.buf = append(l.buf, p...)
	if n := len(l.buf); n > 8<<10 {
		l.buf = append(l.buf[:0], l.buf[n-4<<10:]...)
	}
	return len(p), nil
}

// text returns the last line that reports an error, or else the last line.
func (l *lastLine) text() string {
	lines := strings.Split(strings.TrimSpace(string(l.buf)), "\n")
	for i := len(lines) - 1; i >= 0; i-- {
		if strings.HasPrefix(lines[i], "E: ") {
			return lines[i]
		}
	}
	return lines[len(lines)-1]
}

// hostSources writes the host's own Debian sources of a suite to a file in deb822 form, with their
// keys. It leaves out sources of other origins.
func hostSources(dir, suite string) (string, error) {
	files, err := filepath.Glob(filepath.Join(dir, "sources.list.d", "*"))
	if err != nil {
		return "", err
	}
	var out strings.Builder
	for _, f := range append([]string{filepath.Join(dir, "sources.list")}, files...) {
		data, err := os.ReadFile(f)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return "", err
		}
		switch filepath.Ext(f) {
		case ".sources":
			keepStanzas(&out, data, suite)
		case ".list":
			keepLines(&out, data, suite)
		}
	}
	if out.Len() == 0 {
		return "", banger.Errorf(banger.CodeUnavailable, "this host has no apt source of Debian %s", suite).
			WithHint("add one below /etc/apt/sources.list.d, or use an image of a registry")
	}
	return out.String(), nil
}

// isSuite reports whether word is the suite or a part of it, such as bookworm, bookworm-updates,
// bookworm-security or bookworm/updates.
func isSuite(word, suite string) bool {
	return word == suite || strings.HasPrefix(word, suite+"-") || strings.HasPrefix(word, suite+"/")
}

// keepStanzas copies the deb822 stanzas (sources.list(5)) all of whose suites belong to suite.
func keepStanzas(out *strings.Builder, data []byte, suite string) {
	for stanza := range strings.SplitSeq(string(data), "\n\n") {
		ours, enabled := false, true
		sc := bufio.NewScanner(strings.NewReader(stanza))
		var kept []string
		for sc.Scan() {
			line := sc.Text()
			if strings.HasPrefix(line, "#") || strings.TrimSpace(line) == "" {
				continue
			}
			kept = append(kept, line)
			key, value, _ := strings.Cut(line, ":")
			switch strings.ToLower(key) {
			case "suites":
				ours = true
				for _, w := range strings.Fields(value) {
					ours = ours && isSuite(w, suite)
				}
			case "enabled":
				enabled = strings.TrimSpace(value) != "no"
			}
		}
		if ours && enabled {
			fmt.Fprintf(out, "%s\n\n", strings.Join(kept, "\n"))
		}
	}
}

// keepLines converts one-line sources of the suite to stanzas.
func keepLines(out *strings.Builder, data []byte, suite string) {
	for line := range bytes.Lines(data) {
		text := strings.TrimSpace(string(line))
		options := ""
		if i, j := strings.IndexByte(text, '['), strings.IndexByte(text, ']'); i > 0 && j > i {
			options, text = text[i+1:j], text[:i]+text[j+1:]
		}
		f := strings.Fields(text)
		if len(f) < 4 || f[0] != "deb" || !isSuite(f[2], suite) {
			continue
		}
		fmt.Fprintf(out, "Types: deb\nURIs: %s\nSuites: %s\nComponents: %s\n", f[1], f[2], strings.Join(f[3:], " "))
		key := "/usr/share/keyrings/debian-archive-keyring.gpg"
		for o := range strings.FieldsSeq(options) {
			if v, ok := strings.CutPrefix(o, "signed-by="); ok {
				key = v
			}
		}
		fmt.Fprintf(out, "Signed-By: %s\n\n", key)
	}
}
