package source

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"banger"
	"banger/internal/contextio"
	"banger/internal/image/layer"
	"banger/internal/proxy"
)

// recipe makes an image from Debian packages with the host's own apt sources. It works on a machine
// without a registry.
type recipe struct {
	suite    string
	packages []string
}

// recipes are the recipes by the names of their images. A name here takes precedence over a registry's.
var recipes = map[string]recipe{
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

// IsRecipe reports whether name is the name of an image that a recipe makes.
func IsRecipe(name string) bool {
	_, ok := recipes[name]
	return ok
}

// DefaultPath is the environment's entry for programs of an image that sets none.
const DefaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// build makes the image of a recipe: one layer, a config and a manifest.
func (f *Finder) build(ctx context.Context, ref string, r recipe, emit banger.Emit) (Content, error) {
	text := "making " + ref
	emit(banger.Event{Stage: "pull", Text: text + " of Debian packages"})
	out, err := r.bootstrap(ctx, ref, f.Temp, func(s step) {
		emit(banger.Event{Stage: "pull", Text: text + ": " + s.text, Count: s.count, Of: s.of})
	})
	if err != nil {
		return nil, err
	}
	defer out.Close()
	packed, err := layer.Pack(f.Blobs, layer.Watch(contextio.NewReader(ctx, out), text+": packing", emit))
	if err != nil {
		return nil, err
	}
	id, err := v1.NewHash(packed.DiffID)
	if err != nil {
		return nil, err
	}
	now := v1.Time{Time: time.Now().UTC()}
	config, err := json.Marshal(v1.ConfigFile{
		OS:           "linux",
		Architecture: runtime.GOARCH,
		Created:      now,
		Config:       v1.Config{Cmd: []string{"/bin/bash"}, Env: []string{DefaultPath}},
		RootFS:       v1.RootFS{Type: "layers", DiffIDs: []v1.Hash{id}},
		History: []v1.History{{
			Created:   now,
			CreatedBy: "banger: mmdebstrap " + r.suite + " " + strings.Join(r.packages, " "),
		}},
	})
	if err != nil {
		return nil, err
	}
	configDescriptor, err := f.PutConfig(config)
	if err != nil {
		return nil, err
	}
	layerDescriptor, err := Descriptor(packed)
	if err != nil {
		return nil, err
	}
	body, err := json.Marshal(v1.Manifest{
		SchemaVersion: 2,
		MediaType:     ociManifestType,
		Config:        configDescriptor,
		Layers:        []v1.Descriptor{layerDescriptor},
	})
	return Stored(f.Blobs, body), err
}

// bootstrap starts mmdebstrap and returns its tar while it is made. It calls tell at each step. For an ordinary user
// mmdebstrap works in a user namespace below $TMPDIR, and the kernel undoes its mounts. For root we give it a mount
// namespace for the same purpose: after a crash, the removal of its files must not reach the host's /proc or /dev.
func (r recipe) bootstrap(ctx context.Context, ref, dir string, tell func(step)) (io.ReadCloser, error) {
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
	args := []string{"--verbose", "--variant=minbase", "--format=tar", "--include=" + strings.Join(r.packages, ","),
		"--aptopt=Acquire::Languages \"none\"", "--skip=cleanup/reproducible",
		// What is made is stored and synced as a whole. The guest's dpkg must be careful again.
		"--dpkgopt=force-unsafe-io", `--customize-hook=rm "$1/etc/dpkg/dpkg.cfg.d/99mmdebstrap"`}
	if _, err := os.Stat(mergedUsr); err == nil {
		args = append(args, "--hook-dir="+mergedUsr)
	}
	cmd := exec.CommandContext(ctx, tool, append(args, r.suite, "-", "-")...)
	cmd.Stdin = strings.NewReader(sources)
	cmd.Env = append(proxy.Environ(banger.RegistryAccessOf(ctx), os.Environ()), "LC_ALL=C.UTF-8",
		"PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	b := &bootstrap{stderr: steps{tell: tell}}
	cmd.Stderr = &b.stderr
	// It gets its own process group, so all of it can be ended. SIGTERM, which it also gets when this
	// process dies, makes it remove what it has unpacked as users of a namespace.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if os.Geteuid() == 0 {
		if b.tmp, err = os.MkdirTemp(dir, TempPrefix+"*"); err == nil {
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

// mergedUsr has the hooks that make /bin and its siblings links before anything is unpacked. Without them, the package
// usrmerge does it, which needs all of Perl.
const mergedUsr = "/usr/share/mmdebstrap/hooks/merged-usr"

// bootstrapGrace is how long mmdebstrap may clean up after SIGTERM.
const bootstrapGrace = 10 * time.Second

// bootstrap is a running mmdebstrap. Its methods may be called concurrently.
type bootstrap struct {
	out    io.Reader
	stderr steps
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

// removeTmp removes the temporary directory, if there is one.
func (b *bootstrap) removeTmp() error {
	if b.tmp == "" {
		return nil
	}
	return os.RemoveAll(b.tmp)
}
