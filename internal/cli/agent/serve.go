package agent

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"banger"
	"banger/internal/api/client"
	"banger/internal/blob"
	"banger/internal/cli/background"
	"banger/internal/cli/command"
	"banger/internal/cli/session"
	"banger/internal/cli/spec"
	"banger/internal/cli/work"
	"banger/internal/private"
	"banger/internal/recipe"
)

func newLogin(a *command.App) *cobra.Command {
	var o flags
	c := &cobra.Command{
		Use:   "login [flags] AGENT",
		Short: "Log in to an agent's provider, and keep the login for the agent's VMs",
		Long: `Log in to an agent's provider in a VM that is removed afterwards. What the agent then has in its home directory
to be logged in is kept on this host, for you alone, and each new VM of the agent gets it.`,
		Args: command.Usage(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error { return login(c.Context(), a, args[0], o) },
	}
	c.Flags().StringVar(&o.detachKeys, "detach-keys", session.DefaultDetachKeys, background.KeysUsage)
	return c
}

func login(ctx context.Context, a *command.App, name string, o flags) error {
	name, r, err := find(a, name)
	if err != nil {
		return err
	}
	if len(r.Login) == 0 {
		return banger.Errorf(banger.CodeInvalid, "agent %s has no command to log in", name).
			WithHint("give it a key: banger agent run %s --secret NAME", name)
	}
	c, err := a.Connect(ctx)
	if err != nil {
		return err
	}
	img, err := image(ctx, a, c, name, r, true)
	if err != nil {
		return err
	}
	s := spec.Options{CPUs: "2", Memory: "2g", Disk: "10g", Policy: banger.Deny, Allow: r.Allow, StopTimeout: -1}
	s.Spec.Entrypoint = []string{} // it is there for the session alone
	wanted, err := s.Resolve(img.Reference, nil)
	if err != nil {
		return err
	}
	vm, err := work.Create(ctx, a, c, wanted)
	if err != nil {
		return err
	}
	defer work.Remove(c, vm.ID)
	kept := keptOf(a, name)
	if err := kept.restore(ctx, a, c, vm); err != nil {
		return err
	}
	q := work.Request{Command: r.Login}
	q.Options.Spec.Env = agentEnv(r, nil)
	if _, err := work.Session(ctx, a, c, vm, q.Session(a), nil); err != nil {
		return err
	}
	if err := kept.save(context.WithoutCancel(ctx), c, vm, r); err != nil {
		return err
	}
	if !kept.any() {
		return banger.Errorf(banger.CodeGuest, "agent %s keeps no login in %s", name, strings.Join(r.Keep, ", "))
	}
	work.Say(a, "the login of "+name+" is kept on this host; forget it: rm "+kept.path)
	return nil
}

func newServe(a *command.App) *cobra.Command {
	var o Flags
	port := 0
	c := &cobra.Command{
		Use:   "serve [flags] AGENT [PATH]",
		Short: "Run an agent's server in a VM, and print how to attach to it",
		Long: `Run an agent's server in a VM with the repository around PATH, as a session that starts again when it fails.
When it is ready, banger prints its address on this host, and the lines that attach clients of this host to it. banger
chooses the password.`,
		Example: "  banger agent serve opencode\n  banger agent serve opencode ~/src/project --port 4096",
		Args:    command.Usage(cobra.RangeArgs(1, 2)),
		RunE: func(c *cobra.Command, args []string) error {
			q, r, err := o.request(c.Context(), a, c, args)
			if err != nil {
				return err
			}
			if r.Serve == nil {
				return banger.Errorf(banger.CodeInvalid, "agent %s has no server", q.Agent).WithHint("see: banger agent ls")
			}
			if port < 0 || port > 65535 {
				return command.UsageErrorf("--port is %d, but must be between 0 and 65535", port)
			}
			return serve(c.Context(), a, q, r, uint16(port))
		},
	}
	o.Register(c.Flags())
	c.Flags().IntVar(&port, "port", 0, "port of this host; 0: any free one")
	return c
}

// serveSession is the name of the session of an agent's server.
const serveSession = "serve"

// serveWithin is how long a server may take until it is ready.
const serveWithin = 3 * time.Minute

func serve(ctx context.Context, a *command.App, q work.Request, r recipe.Recipe, port uint16) error {
	c, err := a.Connect(ctx)
	if err != nil {
		return err
	}
	vm, err := enter(ctx, a, c, q, r)
	if err != nil {
		return err
	}
	password, err := passwordOf(ctx, a, vm)
	if err != nil {
		return err
	}
	if err := startServer(ctx, c, vm, q, r, password); err != nil {
		return err
	}
	p := a.Progress()
	p.Emit(banger.Event{Stage: "serve", Text: "waiting for " + q.Agent})
	_, err = c.ReadySession(ctx, vm.ID, serveSession, serveWithin)
	p.Close()
	if err != nil {
		return banger.Errorf(banger.CodeOf(err), "the server of %s is not ready: %w", q.Agent, err).
			WithHint("see: banger session logs %s %s", vm.Name, serveSession)
	}
	at, err := forward(ctx, c, vm, uint16(r.Serve.Port), port)
	if err != nil {
		return err
	}
	url := "http://" + at
	a.Say(url)
	if r.Serve.Password != "" {
		a.Say("user " + r.Serve.User + ", password " + password)
	}
	for _, line := range r.Serve.Attach {
		line = strings.ReplaceAll(line, recipe.URLWord, url)
		if r.Serve.Password != "" {
			line = r.Serve.Password + "=" + password + " " + line
		}
		a.Say(line)
	}
	return nil
}

// passwordOf returns the password of the server in a VM. It follows from a key of this user's, so that the next call
// tells the same one.
func passwordOf(ctx context.Context, a *command.App, vm banger.VM) (string, error) {
	release, err := a.Daemon.Hold(ctx)
	if err != nil {
		return "", err
	}
	defer release()
	path := filepath.Join(a.Paths.State, "agents", "key")
	key, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(key) != sha256.Size {
		key = make([]byte, sha256.Size)
		rand.Read(key)
		if err = private.Make(filepath.Dir(path), 0o700); err == nil {
			err = blob.WriteFile(path, 0o600, func(w io.Writer) error {
				_, err := w.Write(key)
				return err
			})
		}
	}
	if err != nil {
		return "", banger.Errorf(banger.CodeUnavailable, "cannot keep the key for passwords in %s: %w", path,
			banger.Cause(err))
	}
	h := hmac.New(sha256.New, key)
	h.Write([]byte(vm.ID))
	return hex.EncodeToString(h.Sum(nil)[:16]), nil
}

// startServer starts the session of the server, unless it runs.
func startServer(ctx context.Context, c *client.Client, vm banger.VM, q work.Request, r recipe.Recipe,
	password string) error {
	old, err := c.Session(ctx, vm.ID, serveSession)
	if err == nil && old.State != banger.SessionEnded {
		return nil
	}
	if err == nil {
		err = c.RemoveSession(ctx, vm.ID, serveSession, true)
	}
	if err != nil && banger.CodeOf(err) != banger.CodeNotFound {
		return err
	}
	e := banger.Exec{Args: replaced(r.Serve.Command, recipe.PortWord, strconv.Itoa(r.Serve.Port)),
		Env: slices.Clone(q.Options.Spec.Env), Workspace: true}
	if e.Secrets, err = keys(ctx, c, vm, r, q.Secrets.Env); err != nil {
		return err
	}
	probe := banger.Probe{Check: fmt.Sprintf("tcp:%d", r.Serve.Port)}
	if r.Serve.Password != "" {
		e.Env = append(e.Env, r.Serve.Password+"="+password)
	}
	if r.Serve.Health != "" { // the probe has the environment of the server
		line := fmt.Sprintf(`curl -fsS -o /dev/null -u "%s:$%s" http://127.0.0.1:%d%s`, r.Serve.User, r.Serve.Password,
			r.Serve.Port, r.Serve.Health)
		probe = banger.Probe{Args: []string{"/bin/sh", "-c", line}, Timeout: probeTimeout}
	}
	_, err = c.StartSession(ctx, vm.ID, banger.SessionSpec{Name: serveSession, Command: e, Ready: &probe,
		Restart: banger.RestartPolicy{Name: banger.RestartAlways}})
	return err
}

// probeTimeout is long, because a guest may be emulated.
const probeTimeout = 30 * time.Second

// replaced returns words with another text in place of one.
func replaced(words []string, old, new string) (out []string) {
	for _, w := range words {
		out = append(out, strings.ReplaceAll(w, old, new))
	}
	return out
}

const loopback = "127.0.0.1"

// forward makes the guest's port reachable on this host's loopback, and returns the address.
func forward(ctx context.Context, c *client.Client, vm banger.VM, guest, host uint16) (string, error) {
	now, err := c.Get(ctx, vm.ID)
	if err != nil {
		return "", err
	}
	for _, f := range now.Forwards {
		if f.GuestPort == guest && f.HostIP == loopback && (host == 0 || f.HostPort == host) {
			return net.JoinHostPort(loopback, strconv.Itoa(int(f.HostPort))), nil
		}
	}
	f, err := c.AddForward(ctx, vm.ID, banger.Forward{Protocol: "tcp", HostIP: loopback, HostPort: host,
		GuestPort: guest})
	return net.JoinHostPort(loopback, strconv.Itoa(int(f.HostPort))), err
}
