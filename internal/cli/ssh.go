package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"banger"
	"banger/internal/sshconf"
)

// sshFlags are the flags of ssh that banger ssh passes on.
type sshFlags struct {
	login           string
	local, remote   []string
	dynamic, keys   []string
	options         []string
	agent, none     bool
	tty, noTTY, log bool
}

func (a *app) sshCommand() *cobra.Command {
	var f sshFlags
	c := &cobra.Command{
		Use:   "ssh [flags] [USER@]VM [--] [COMMAND...]",
		Short: "Log in to a VM by the system's OpenSSH client",
		Long: `Log in to a VM, or run a command in it, by the system's OpenSSH client. The server is banger's own agent: the
image needs none, and no port is open. As with ssh, the words of COMMAND are joined and read by the user's shell,
and the exit code is the command's, or 255 when ssh fails. Your own ssh_config is not read; see: banger ssh-config.`,
		Example: `  banger ssh web
  banger ssh -L 8080:localhost:80 -N web
  banger ssh web -- uname -a`,
		ValidArgsFunction: a.completeVMs,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return &exitError{exitUsage, fmt.Errorf("no VM given (see: %s --help)", c.CommandPath())}
			}
			if len(args) > 1 && args[1] == "--" {
				args = append(args[:1:1], args[2:]...)
			}
			return a.ssh(c.Context(), f, args[0], args[1:])
		},
	}
	fs := c.Flags()
	fs.SetInterspersed(false)
	fs.StringVarP(&f.login, "login", "l", "", "user of the image (default: root)")
	fs.StringArrayVarP(&f.keys, "identity", "i", nil, "file of a private key to log in with, besides banger's own")
	fs.BoolVarP(&f.agent, "forward-agent", "A", false, "let the VM use the keys of your SSH agent")
	fs.StringArrayVarP(&f.local, "local", "L", nil, "[ADDRESS:]PORT:HOST:HOSTPORT: forward a port of this host to where the VM reaches it")
	fs.StringArrayVarP(&f.remote, "remote", "R", nil, "[ADDRESS:]PORT:HOST:HOSTPORT: forward a port of the VM to where this host reaches it")
	fs.StringArrayVarP(&f.dynamic, "dynamic", "D", nil, "[ADDRESS:]PORT: a SOCKS proxy on this host that connects from the VM")
	fs.BoolVarP(&f.none, "no-command", "N", false, "run no command, only forward")
	fs.BoolVarP(&f.tty, "tty", "t", false, "give the command a terminal")
	fs.BoolVarP(&f.noTTY, "no-tty", "T", false, "give the command no terminal")
	fs.BoolVarP(&f.log, "verbose", "v", false, "have ssh tell what it does")
	fs.StringArrayVarP(&f.options, "option", "o", nil, "any option of ssh_config(5)")
	return c
}

// ssh replaces this process with the system's ssh, which handles the terminal, signals and exit code.
func (a *app) ssh(ctx context.Context, f sshFlags, target string, command []string) error {
	if i := strings.LastIndexByte(target, '@'); i >= 0 {
		f.login, target = target[:i], target[i+1:]
	}
	program, err := exec.LookPath("ssh")
	if err != nil {
		return banger.Errorf(banger.CodeUnavailable, "there is no ssh in PATH").
			WithHint("install OpenSSH's client (Debian: openssh-client), or use: banger exec")
	}
	client, err := a.connect(ctx)
	if err != nil {
		return err
	}
	vm, err := client.Get(ctx, strings.TrimSuffix(target, sshconf.Suffix))
	if err != nil {
		return err
	}
	if vm.State != banger.StateRunning {
		return banger.Errorf(banger.CodeConflict, "cannot connect to VM %s, it is %s", vm.Name, vm.State).
			WithHint("start it: banger start %s", vm.Name)
	}
	if vm.SSHHostKey == "" {
		return banger.Errorf(banger.CodeConflict, "VM %s was started by a banger without SSH", vm.Name).
			WithHint("start it anew: banger restart %s", vm.Name)
	}
	files, err := a.sshFiles()
	if err != nil {
		return err
	}
	config, err := files.config(f)
	if err != nil {
		return err
	}
	options, err := config.Options(sshHost(vm), true)
	if err != nil {
		return banger.Errorf(banger.CodeInternal, "%w", err)
	}
	if err := a.writeHosts(ctx, files, false); err != nil {
		return err
	}
	argv := append([]string{"ssh", "-F", "none"}, f.args()...)
	for _, o := range options {
		argv = append(argv, "-o", o)
	}
	argv = append(argv, "-o", "SendEnv LANG LC_*", "--", vm.Name+sshconf.Suffix)
	return syscall.Exec(program, append(argv, command...), os.Environ())
}

// args returns ssh's own flags. They must come before our options, because then a user's -o takes precedence.
func (f sshFlags) args() []string {
	var args []string
	for flag, on := range map[string]bool{"-A": f.agent, "-N": f.none, "-t": f.tty, "-T": f.noTTY, "-v": f.log} {
		if on {
			args = append(args, flag)
		}
	}
	slices.Sort(args)
	for _, list := range []struct {
		flag   string
		values []string
	}{{"-o", f.options}, {"-L", f.local}, {"-R", f.remote}, {"-D", f.dynamic}, {"-i", f.keys}} {
		for _, v := range list.values {
			args = append(args, list.flag, v)
		}
	}
	if f.login != "" {
		args = append(args, "-l", f.login)
	}
	return args
}

// sshFiles says where banger keeps the files that ssh reads.
type sshFiles struct {
	dir    string
	state  string
	run    string
	banger string // this program
}

func (a *app) sshFiles() (sshFiles, error) {
	f := sshFiles{dir: filepath.Join(a.paths.State, "ssh"), state: a.paths.State, run: a.paths.Run}
	var err error
	if f.banger, err = os.Executable(); err != nil {
		return f, err
	}
	if err := os.MkdirAll(f.dir, 0o700); err != nil {
		return f, banger.Errorf(banger.CodeDenied, "no room for SSH keys: %w", err)
	}
	_, _, err = f.key()
	return f, err
}

func (f sshFiles) path(name string) string { return filepath.Join(f.dir, name) }

// key returns banger's own user key and makes it if necessary.
func (f sshFiles) key() (private []byte, public string, err error) {
	return sshconf.MakeKey(f.path("id_ed25519"), "banger")
}

// config returns the configuration for reaching a VM. The flags are passed on to the proxy.
func (f sshFiles) config(flags sshFlags) (sshconf.Config, error) {
	proxy := []string{"env", "BANGER_STATE_DIR=" + f.state, "BANGER_RUN_DIR=" + f.run, f.banger, "ssh-proxy"}
	if flags.agent {
		proxy = append(proxy, "-A")
	}
	for _, k := range flags.keys {
		k, err := filepath.Abs(k)
		if err != nil {
			return sshconf.Config{}, err
		}
		proxy = append(proxy, "-i", k)
	}
	return sshconf.Config{Proxy: proxy, KnownHosts: f.path("known_hosts"), Identity: f.path("id_ed25519")}, nil
}

func sshHost(vm banger.VM) sshconf.Host {
	return sshconf.Host{Name: vm.Name, ID: vm.ID, Key: vm.SSHHostKey}
}

// sshHosts returns the VMs that have a host key.
func (a *app) sshHosts(ctx context.Context) ([]sshconf.Host, error) {
	list, err := a.client.List(ctx, true, nil)
	if err != nil {
		return nil, err
	}
	var hosts []sshconf.Host
	for _, vm := range list {
		if vm.SSHHostKey != "" {
			hosts = append(hosts, sshHost(vm))
		}
	}
	slices.SortFunc(hosts, func(a, b sshconf.Host) int { return strings.Compare(a.Name, b.Name) })
	return hosts, nil
}

// writeHosts writes known_hosts and, with config, the configuration from the present VMs. It reads the VMs while it
// holds the lock, so the last writer has the newest list.
func (a *app) writeHosts(ctx context.Context, f sshFiles, config bool) error {
	lock, err := os.OpenFile(f.path("lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer lock.Close() // also releases the lock
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return err
	}
	hosts, err := a.sshHosts(ctx)
	if err != nil {
		return err
	}
	known, err := sshconf.KnownHosts(hosts)
	if err != nil {
		return banger.Errorf(banger.CodeInternal, "%w", err)
	}
	if config {
		text, err := f.text(hosts)
		if err != nil {
			return err
		}
		if err := sshconf.WriteFile(f.path("config"), text); err != nil {
			return err
		}
	}
	return sshconf.WriteFile(f.path("known_hosts"), known)
}

// sshProxyCommand returns the command that ssh runs to reach a VM.
func (a *app) sshProxyCommand() *cobra.Command {
	var keys []string
	var forwardAgent bool
	c := &cobra.Command{
		Use: "ssh-proxy VM", Short: "Connect stdin and stdout to a VM's SSH server", Hidden: true, Args: usage(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			return a.sshProxy(c.Context(), args[0], keys, forwardAgent)
		},
	}
	c.Flags().StringArrayVarP(&keys, "identity", "i", nil, "file of a key that may log in")
	c.Flags().BoolVarP(&forwardAgent, "forward-agent", "A", false, "allow the client to forward its agent")
	return c
}

func (a *app) sshProxy(ctx context.Context, ref string, keys []string, forwardAgent bool) error {
	files, err := a.sshFiles()
	if err != nil {
		return err
	}
	_, own, err := files.key()
	if err != nil {
		return err
	}
	dir := ""
	if home, err := os.UserHomeDir(); err == nil && filepath.IsAbs(home) {
		dir = filepath.Join(home, ".ssh")
	}
	lines, err := sshconf.PublicKeys(keys, dir, os.Getenv("SSH_AUTH_SOCK"))
	if err != nil {
		return banger.Errorf(banger.CodeInvalid, "%w", err)
	}
	lines = append([]string{own}, lines...)
	request := banger.SSH{Keys: lines[:min(len(lines), banger.MaxSSHKeys)], ForwardAgent: forwardAgent}
	conn, err := a.client.SSH(ctx, ref, request)
	if banger.CodeOf(err) == banger.CodeUnavailable { // the daemon may not run although the VM does
		if _, err = a.connect(ctx); err == nil {
			conn, err = a.client.SSH(ctx, ref, request)
		}
	}
	if err != nil {
		return err
	}
	name := ref // OpenSSH's configuration passes the id
	if vm, err := a.client.Get(ctx, ref); err == nil {
		name = vm.Name
	}
	watch := newSilence(name, `Ctrl-C, or Enter ~ . in a session with a terminal, ends ssh`, a.pingOf(ref), a.stderr)
	defer watch.start(ctx)()
	return a.copyBoth(hearing{conn, watch})
}

// hearing is a connection to a VM that notes when data comes.
type hearing struct {
	net.Conn
	silence *silence
}

func (h hearing) Read(p []byte) (int, error) {
	n, err := h.Conn.Read(p)
	if n > 0 {
		h.silence.hear()
	}
	return n, err
}

// CloseWrite closes the sending side, if the connection supports that.
func (h hearing) CloseWrite() error {
	if half, ok := h.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return h.Close()
}

// copyBoth connects stdin and stdout with conn until the far side has ended.
func (a *app) copyBoth(conn net.Conn) error {
	defer conn.Close()
	go func() { // ends with the process; a read of stdin cannot be cut short
		_, err := io.Copy(conn, a.stdin)
		half, ok := conn.(interface{ CloseWrite() error })
		if err != nil || !ok || half.CloseWrite() != nil {
			conn.Close()
		}
	}()
	_, err := io.Copy(a.stdout, conn)
	if errors.Is(err, net.ErrClosed) || errors.Is(err, syscall.EPIPE) {
		return nil
	}
	return err
}
