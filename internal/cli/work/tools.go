package work

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"banger"
	"banger/internal/api/client"
	"banger/internal/bundle"
	"banger/internal/cli/account"
	"banger/internal/cli/command"
	"banger/internal/cli/filecopy"
	"banger/internal/cli/render"
	"banger/internal/cli/session"
	"banger/internal/cli/spec"
	"banger/internal/notation"
	"banger/internal/recipe"
	"banger/internal/tooling"
)

// mise is the program that installs tools, as npm's registry has it.
var mise = recipe.Package{Name: "@jdxcode/mise-linux-x64", Version: "2026.9.15",
	Integrity: "sha512-ButPFGyztN0Rk/HOHvHuf+W80CkvQRAjbDWHvhGJc3PnL3e2KhCYZIOyjx8wPkhr9VJa/7sJZXpxtt5JLjsfaQ=="}

// Where a VM has mise, its configuration, and the tools.
const (
	toolsDir    = "/opt/mise"
	toolsConfig = toolsDir + "/config.toml"
	toolsThere  = toolsDir + "/installed.toml" // the configuration of what is installed
	toolsPath   = toolsDir + "/shims:" + toolsDir + "/bin"
)

// toolsEnv is the environment in which mise finds all of it. The VM is the border, so mise trusts the files of the
// repository there.
var toolsEnv = []string{
	"MISE_DATA_DIR=" + toolsDir, "MISE_GLOBAL_CONFIG_FILE=" + toolsConfig, "MISE_TRUSTED_CONFIG_PATHS=/", "MISE_YES=1",
	"MISE_CACHE_DIR=/var/cache/mise", "MISE_STATE_DIR=/var/lib/mise",
}

// bootstrap brings the tools of a repository into a new VM. They are kept as an image, so that the next VM has them
// at its start.
type bootstrap struct {
	app    *command.App
	client *client.Client
	plan   tooling.Plan

	base  string // the image without the tools
	image string // the name of the image with them; "" if nothing is to be installed
	ready bool   // that image is there
}

// wanted reports whether the repository asks for tools.
func (b *bootstrap) wanted() bool {
	return len(b.plan.Tools) > 0 && len(bytes.TrimSpace(b.plan.Config())) > 0
}

// check tells what is odd about the repository's files, and returns an error if the tools can be had neither from
// this host nor by the VM's network. base is the image without the tools, or nil if that is not there yet.
func (b *bootstrap) check(ctx context.Context, s banger.Spec, base *banger.Image) error {
	for _, note := range b.plan.Notes {
		Say(b.app, note)
	}
	for _, c := range b.plan.Conflicts {
		Say(b.app, c.String())
	}
	if !b.wanted() {
		return nil
	}
	if base != nil {
		if _, err := b.client.Image(ctx, b.name(*base)); err == nil || banger.CodeOf(err) != banger.CodeNotFound {
			return err
		}
	}
	return b.reachable(s)
}

// name returns the name of the image with the tools, which follows from what is in it.
func (b *bootstrap) name(base banger.Image) string {
	key := sha256.Sum256([]byte(base.Digest + " " + mise.Integrity + " " + b.plan.Key()))
	return "localhost/banger/tools:" + hex.EncodeToString(key[:8])
}

// choose decides which image a VM starts from, and gives it the environment for the tools.
func (b *bootstrap) choose(ctx context.Context, s *banger.Spec, base banger.Image) error {
	s.Env = append(append([]string{"PATH=" + toolsPath + ":" + pathOf(base)}, toolsEnv...), s.Env...)
	if !b.wanted() {
		return nil
	}
	b.base, b.image = base.Digest, b.name(base)
	_, err := b.client.Image(ctx, b.image)
	if banger.CodeOf(err) == banger.CodeNotFound {
		return nil
	}
	if err == nil {
		b.ready, s.Image, s.Pull = true, b.image, banger.PullNever
	}
	return err
}

// pathOf returns the PATH of an image.
func pathOf(img banger.Image) string {
	for _, e := range img.Config.Env {
		if p, ok := strings.CutPrefix(e, "PATH="); ok {
			return p
		}
	}
	return "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
}

// reachable returns an error if a VM does not reach the servers from which the tools come.
func (b *bootstrap) reachable(s banger.Spec) error {
	names := make([]string, len(b.plan.Tools))
	for i, t := range b.plan.Tools {
		names[i] = t.Name
	}
	what := "the tools of this repository (" + strings.Join(names, ", ") + ") are to be installed"
	if s.Network == banger.NetworkNone {
		return banger.Errorf(banger.CodeConflict, "%s, but the VM has no network", what).
			WithHint("give it one (leave out --network none), or work without them: --no-bootstrap")
	}
	policy := banger.Policy{Default: banger.Allow}
	if s.Policy != nil {
		policy = *s.Policy
	} else if s.Untrusted {
		policy.Default = banger.Deny
	}
	var missing []string
	for _, host := range b.plan.Hosts() {
		if r, err := notation.ParseRule("allow " + host); err == nil && !permits(policy, r) {
			missing = append(missing, "--net-allow '"+host+"'")
		}
	}
	if len(missing) > 0 {
		return banger.Errorf(banger.CodeConflict, "%s, but the VM's policy keeps it from their servers", what).
			WithHint("allow these: %s; or work without the tools: --no-bootstrap", strings.Join(missing, " "))
	}
	return nil
}

// permits reports whether a policy lets everything pass that a rule about a name allows.
func permits(p banger.Policy, want banger.Rule) bool {
	for _, r := range p.Rules {
		about := r.To == want.To || r.To == banger.ToAny || strings.HasPrefix(r.To, "*.") &&
			strings.HasSuffix(want.To, r.To[1:])
		if about && (r.Protocol == "" || r.Protocol == want.Protocol) && covers(r.Ports, want.Ports) {
			return r.Action == banger.Allow
		}
	}
	return p.Default == banger.Allow
}

// covers reports whether ports, of which none means all, have all of want.
func covers(ports, want []banger.PortRange) bool {
	if len(ports) == 0 {
		return true
	}
	for _, w := range want {
		if !slices.ContainsFunc(ports, func(r banger.PortRange) bool { return r.First <= w.First && w.Last <= r.Last }) {
			return false
		}
	}
	return len(want) > 0
}

// install installs the tools in a VM that was just made, and makes the image of them.
func (b *bootstrap) install(ctx context.Context, vm banger.VM) error {
	if b.image == "" || b.ready {
		return nil
	}
	began := time.Now()
	if err := b.run(ctx, vm); err != nil {
		return err
	}
	Say(b.app, fmt.Sprintf("the tools were installed in %.0f s; they are kept for the next VM",
		time.Since(began).Seconds()))
	return b.keep(ctx, vm)
}

// run has mise install the tools of the plan in a VM.
func (b *bootstrap) run(ctx context.Context, vm banger.VM) error {
	if err := b.bring(ctx, vm); err != nil {
		return err
	}
	status, err := b.exec(ctx, vm, "cd / && mise install && cp "+toolsConfig+" "+toolsThere, b.app.Stderr)
	if err == nil && status != 0 {
		err = banger.Errorf(banger.CodeGuest, "the tools of this repository were not installed: mise ended with %d, and "+
			"says why above", status).WithHint("see: banger tooling plan; or work without them: --no-bootstrap")
	}
	return err
}

// update installs the tools in a VM from before, if it has others than the repository asks for now. Those that are its
// first ones are kept too.
func (b *bootstrap) update(ctx context.Context, vm banger.VM) error {
	if !b.wanted() {
		return nil
	}
	var now bytes.Buffer
	if _, err := b.exec(ctx, vm, "head -c 65536 "+toolsThere+" 2>/dev/null", &now); err != nil {
		return err
	}
	if bytes.Equal(now.Bytes(), b.plan.Config()) {
		return nil
	}
	Say(b.app, "the VM lacks tools that the repository asks for")
	if err := b.reachable(vm.Spec); err != nil {
		return err
	}
	if now.Len() > 0 {
		return b.run(ctx, vm)
	}
	b.base, b.image = vm.ImageDigest, b.name(banger.Image{Digest: vm.ImageDigest})
	return b.install(ctx, vm)
}

// exec runs a line of shell in the VM, and writes what it says to out.
func (b *bootstrap) exec(ctx context.Context, vm banger.VM, line string, out io.Writer) (int, error) {
	conn, err := b.client.Exec(ctx, vm.ID, banger.Exec{Args: []string{"/bin/sh", "-c", line}, User: "0"})
	if err != nil {
		return 0, err
	}
	to, flush := render.Printable(out)
	defer flush()
	return session.Run(ctx, conn, session.Stdio{Out: to, Err: to}, false, vm.Name, b.app.Ping(vm.ID))
}

// bring copies mise and its configuration into the VM. The image's own mise comes first.
func (b *bootstrap) bring(ctx context.Context, vm banger.VM) error {
	status, err := b.exec(ctx, vm, "command -v mise >/dev/null", io.Discard)
	if err != nil {
		return err
	}
	var program *os.File
	if status != 0 {
		p := b.app.Progress()
		program, err = Programs(b.app).Package(ctx, mise, p.Emit)
		p.Close()
		if err != nil {
			return err
		}
		defer program.Close()
	}
	return Send(ctx, b.app, b.client, vm, "/", func(w *tar.Writer) error {
		config := b.plan.Config()
		dir := strings.TrimPrefix(toolsDir, "/")
		for _, d := range []string{dir, dir + "/bin"} {
			if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: d + "/", Mode: 0o755}); err != nil {
				return err
			}
		}
		err := w.WriteHeader(&tar.Header{Name: strings.TrimPrefix(toolsConfig, "/"), Mode: 0o644, Size: int64(len(config))})
		if err == nil {
			_, err = w.Write(config)
		}
		if err != nil || program == nil {
			return err
		}
		return bundle.CopyFile(w, program, "package/bin/mise", dir+"/bin/mise")
	})
}

// keep makes the image with the tools: the image without them, and one more layer.
func (b *bootstrap) keep(ctx context.Context, vm banger.VM) error {
	p := b.app.Progress()
	defer p.Close()
	out, in := io.Pipe()
	places, err := filecopy.ParsePlaces(vm.ID+":"+toolsDir, "-", false, false)
	if err != nil {
		return err
	}
	copied := make(chan error, 1)
	go func() { // ends with the pipe
		c := filecopy.Copy{Client: b.client, Stdout: in, Archive: true, Patience: filecopy.Patience,
			Progress: render.NewProgress(b.app.Stderr, true)}
		_, err := c.Run(ctx, places)
		in.CloseWithError(err)
		copied <- err
	}()
	moved, w := io.Pipe()
	go func() { w.CloseWithError(below(out, w, path.Dir(toolsDir))) }() // ends with the pipes
	_, err = b.client.ExtendImage(ctx, b.base, b.image, moved, banger.CommitNote{Author: "banger work",
		Message: "the tools of " + b.plan.Root}, p.Emit)
	moved.CloseWithError(errors.Join(err, io.ErrClosedPipe))
	out.CloseWithError(io.ErrClosedPipe)
	if cerr := <-copied; err == nil && cerr != nil {
		err = cerr
	}
	return err
}

// below writes the tar that it reads, with all names below a directory.
func below(r io.Reader, w io.Writer, dir string) error {
	out := tar.NewWriter(w)
	dir = strings.TrimPrefix(dir, "/")
	return errors.Join(CopyTar(out, r, func(h *tar.Header) {
		h.Name = path.Join(dir, h.Name)
		if h.Typeflag == tar.TypeLink {
			h.Linkname = path.Join(dir, h.Linkname)
		}
	}), out.Close())
}

// Programs returns where this user's fetched programs are.
func Programs(a *command.App) bundle.Store {
	return bundle.Store{Dir: filepath.Join(a.Paths.State, "programs"),
		NPM: bundle.NPMOf(os.Environ(), filepath.Join(os.Getenv("HOME"), ".npmrc"))}
}

// Image returns an image. With fetch it fetches an image that is not there; otherwise it returns nil.
func Image(ctx context.Context, a *command.App, c *client.Client, ref, platform, pull string, fetch bool) (
	*banger.Image, error) {
	ref = spec.AbsoluteReference(ref)
	img, err := c.Image(ctx, ref)
	if err == nil && pull != banger.PullAlways {
		return &img, nil
	}
	if err != nil && banger.CodeOf(err) != banger.CodeNotFound || pull == banger.PullNever {
		return nil, err
	}
	if !fetch {
		return nil, nil
	}
	with, err := account.With(ctx, ref)
	if err != nil {
		return nil, err
	}
	p := a.Progress()
	defer p.Close()
	img, err = c.PullImage(with, ref, platform, p.Emit)
	return &img, err
}

// Send writes the files of a tar into a VM, below a directory, with their owners.
func Send(ctx context.Context, a *command.App, c *client.Client, vm banger.VM, dir string,
	write func(w *tar.Writer) error) error {
	places, err := filecopy.ParsePlaces("-", vm.ID+":"+dir, false, false)
	if err != nil {
		return err
	}
	out, to := io.Pipe()
	go func() { // ends with the pipe
		w := tar.NewWriter(to)
		to.CloseWithError(errors.Join(write(w), w.Close()))
	}()
	defer out.Close()
	p := render.NewProgress(a.Stderr, true)
	defer p.Close()
	in := filecopy.Copy{Client: c, Stdin: out, Archive: true, Patience: filecopy.Patience, Progress: p}
	_, err = in.Run(ctx, places)
	return err
}
