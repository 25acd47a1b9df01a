package cli

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"banger"
	"banger/internal/cli/command"
	"banger/internal/cli/session"
	"banger/internal/cli/sshfiles"
	"banger/internal/sshconf"
)

// sshFlags are the flags of ssh that banger ssh passes on.
type sshFlags struct {
	login   string
	local   []string
	remote  []string
	dynamic []string
	keys    []string
	options []string
	agent   bool
	none    bool
	tty     bool
	noTTY   bool
	log     bool
}

func newSSH(a *app) *cobra.Command {
	var f sshFlags
	c := &cobra.Command{
		Use:   "ssh [flags] [USER@]VM [--] [COMMAND...]",
		Short: "Log in to a VM by the system's OpenSSH client",
		Long: `Log in to a VM, or run a command in it, by the system's OpenSSH client. The server is banger's own agent:
the image needs none, and no port is open. As with ssh, the words of COMMAND are joined and read by the
user's shell, and the exit code is the command's, or 255 when ssh fails. Your own ssh_config is not read;
see: banger ssh-config.`,
		Example: `  banger ssh web
  banger ssh -L 8080:localhost:80 -N web
  banger ssh web -- uname -a`,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return command.UsageErrorf("no VM given (see: %s --help)", c.CommandPath())
			}
			if len(args) > 1 && args[1] == "--" {
				args = append(args[:1:1], args[2:]...)
			}
			return runSSH(c.Context(), a, f, args[0], args[1:])
		},
	}
	fs := c.Flags()
	fs.SetInterspersed(false)
	fs.StringVarP(&f.login, "login", "l", "", "user of the image (default: root)")
	fs.StringArrayVarP(&f.keys, "identity", "i", nil, "file of a private key to log in with, besides banger's own")
	fs.BoolVarP(&f.agent, "forward-agent", "A", false, "let the VM use the keys of your SSH agent")
	fs.StringArrayVarP(&f.local, "local", "L", nil,
		"[ADDRESS:]PORT:HOST:HOSTPORT: forward a port of this host to where the VM reaches it")
	fs.StringArrayVarP(&f.remote, "remote", "R", nil,
		"[ADDRESS:]PORT:HOST:HOSTPORT: forward a port of the VM to where this host reaches it")
	fs.StringArrayVarP(&f.dynamic, "dynamic", "D", nil,
		"[ADDRESS:]PORT: a SOCKS proxy on this host that connects from the VM")
	fs.BoolVarP(&f.none, "no-command", "N", false, "run no command, only forward")
	fs.BoolVarP(&f.tty, "tty", "t", false, "give the command a terminal")
	fs.BoolVarP(&f.noTTY, "no-tty", "T", false, "give the command no terminal")
	fs.BoolVarP(&f.log, "verbose", "v", false, "have ssh tell what it does")
	fs.StringArrayVarP(&f.options, "option", "o", nil, "any option of ssh_config(5)")
	return c
}

// runSSH replaces this process with the system's ssh, which handles the terminal, signals and exit code.
func runSSH(ctx context.Context, a *app, f sshFlags, target string, command []string) error {
	if i := strings.LastIndexByte(target, '@'); i >= 0 {
		f.login, target = target[:i], target[i+1:]
	}
	program, err := exec.LookPath("ssh")
	if err != nil {
		return banger.Errorf(banger.CodeUnavailable, "there is no ssh in PATH").
			WithHint("install OpenSSH's client (Debian: openssh-client), or use: banger exec")
	}
	client, err := a.Connect(ctx)
	if err != nil {
		return err
	}
	vm, err := client.Get(ctx, strings.TrimSuffix(target, sshconf.Suffix))
	if err != nil {
		return err
	}
	if vm.State != banger.StateRunning && !vm.Wakes() {
		return vm.NotRunning("connect to")
	}
	if vm.SSHHostKey == "" {
		return banger.Errorf(banger.CodeConflict, "VM %s was started by a banger without SSH", vm.Name).
			WithHint("start it anew: banger restart %s", vm.Name)
	}
	files, err := sshfiles.Open(a.Paths)
	if err != nil {
		return err
	}
	config, err := files.Config(f.agent, f.keys)
	if err != nil {
		return err
	}
	options, err := config.Options(sshfiles.HostOf(vm), true)
	if err != nil {
		return banger.Errorf(banger.CodeInternal, "%w", err)
	}
	if err := files.Write(ctx, client, false); err != nil {
		return err
	}
	argv := append([]string{"ssh", "-F", "none"}, f.args()...)
	for _, o := range options {
		argv = append(argv, "-o", o)
	}
	a.Leave()
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

// newSSHProxy returns the command that ssh runs to reach a VM.
func newSSHProxy(a *app) *cobra.Command {
	var keys []string
	var forwardAgent bool
	c := &cobra.Command{
		Use:    "ssh-proxy VM",
		Short:  "Connect stdin and stdout to a VM's SSH server",
		Hidden: true,
		Args:   command.Usage(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			return runSSHProxy(c.Context(), a, args[0], keys, forwardAgent)
		},
	}
	c.Flags().StringArrayVarP(&keys, "identity", "i", nil, "file of a key that may log in")
	c.Flags().BoolVarP(&forwardAgent, "forward-agent", "A", false, "allow the client to forward its agent")
	return c
}

// runSSHProxy connects stdin and stdout with the SSH server of a VM.
func runSSHProxy(ctx context.Context, a *app, ref string, keys []string, forwardAgent bool) error {
	files, err := sshfiles.Open(a.Paths)
	if err != nil {
		return err
	}
	own, err := files.Key()
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
	conn, err := a.Client.SSH(ctx, ref, request)
	if banger.CodeOf(err) == banger.CodeUnavailable { // the daemon may not run although the VM does
		if _, err = a.Connect(ctx); err == nil {
			conn, err = a.Client.SSH(ctx, ref, request)
		}
	}
	if err != nil {
		return err
	}
	name := ref // OpenSSH's configuration passes the id
	if vm, err := a.Client.Get(ctx, ref); err == nil {
		name = vm.Name
	}
	const ends = `Ctrl-C, or Enter ~ . in a session with a terminal, ends ssh`
	watch := session.NewSilence(name, ends, a.Ping(ref), a.Stderr)
	return session.Join(ctx, conn, a.Stdio(), watch)
}
