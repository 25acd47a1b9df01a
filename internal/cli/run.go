package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"banger"
	"banger/internal/api"
	"banger/internal/host"
)

// specFlags are the flags of run and create that describe a VM.
type specFlags struct {
	spec         banger.Spec
	memory, disk string
	envFiles     []string
	labels       []string
	entrypoint   string
	interactive  bool
	detach       bool
	tty          bool
	network      networkFlags
}

func (f *specFlags) register(c *cobra.Command) {
	fs := c.Flags()
	fs.SetInterspersed(false) // everything after IMAGE belongs to the command
	fs.StringVar(&f.spec.Name, "name", "", "name of the VM (a DNS label; default: a random one)")
	fs.IntVar(&f.spec.CPUs, "cpus", banger.DefaultCPUs, "virtual CPUs")
	fs.StringVar(&f.spec.CPUModel, "cpu-model", "", "CPU that the guest sees, in QEMU's words (default: the host's, or EPYC-v1 when emulated)")
	fs.StringVar(&f.spec.Nested, "nested", "", "the guest gets /dev/kvm and can run VMs of its own; =force for an untrusted VM too")
	fs.Lookup("nested").NoOptDefVal = banger.NestedOn
	fs.StringVarP(&f.memory, "memory", "m", "512m", "memory, like 512m or 2g")
	fs.StringVar(&f.disk, "disk", "10g", "size of the writable disk; it takes room as it fills")
	fs.StringVar(&f.spec.Kernel, "kernel", "", "guest kernel (see: banger kernel ls)")
	fs.StringArrayVarP(&f.spec.Env, "env", "e", nil, "KEY=VALUE, or KEY to pass this shell's value on")
	fs.StringArrayVar(&f.envFiles, "env-file", nil, "file of KEY=VALUE lines")
	fs.StringVarP(&f.spec.WorkingDir, "workdir", "w", "", "directory of the command")
	fs.StringVarP(&f.spec.User, "user", "u", "", "user[:group] of the command")
	fs.StringVar(&f.entrypoint, "entrypoint", "", `program to run instead of the image's entrypoint ("" clears it)`)
	fs.StringVar(&f.spec.Hostname, "hostname", "", "host name of the guest (default: the VM's name)")
	fs.StringArrayVarP(&f.labels, "label", "l", nil, "KEY=VALUE to find the VM by")
	fs.BoolVarP(&f.interactive, "interactive", "i", false, "pass stdin to the command")
	fs.BoolVarP(&f.tty, "tty", "t", false, "give the command a terminal")
	fs.BoolVar(&f.spec.AutoRemove, "rm", false, "remove the VM when it ends")
	fs.StringVar(&f.spec.Pull, "pull", banger.PullMissing, "fetch the image: missing, always or never")
	fs.StringVar(&f.spec.Platform, "platform", "", "os/arch[/variant] to choose from an image of several (default: this machine's)")
	fs.StringVar(&f.spec.VMM, "vmm", banger.VMMAuto, "auto, firecracker or qemu")
	f.network.register(c, &f.spec)
	fs.StringVar(&f.spec.Init, "init", banger.InitAuto, "PID 1 in the guest: agent, image, or auto (image when that is systemd)")
}

// resolve turns flags and arguments into a spec. Its only I/O is reading files.
func (f *specFlags) resolve(c *cobra.Command, args []string) (banger.Spec, error) {
	s := f.spec
	if len(args) == 0 {
		return s, &exitError{exitBanger, fmt.Errorf("no image given (for example: %s debian-bookworm)", c.CommandPath())}
	}
	s.Image, s.Cmd = absoluteReference(args[0]), args[1:]
	if len(s.Cmd) > 0 && s.Cmd[0] == "--" {
		s.Cmd = s.Cmd[1:]
	}
	var err error
	if s.Memory, err = sizeFlag("memory", f.memory); err != nil {
		return s, err
	}
	if s.Disk, err = sizeFlag("disk", f.disk); err != nil {
		return s, err
	}
	if s.CPUs == 0 {
		return s, banger.Errorf(banger.CodeInvalid, "cpus is 0, but must be between 1 and %d", banger.MaxCPUs)
	}
	if s.Env, err = resolveEnv(f.envFiles, s.Env); err != nil {
		return s, err
	}
	if c.Flags().Changed("entrypoint") {
		s.Entrypoint = []string{f.entrypoint}
	}
	s.Labels = map[string]string{}
	for _, l := range f.labels {
		k, v, _ := strings.Cut(l, "=")
		s.Labels[k] = v
	}
	s.TTY = f.tty
	if err := f.network.resolve(&s); err != nil {
		return s, err
	}
	check := s
	return s, check.Normalize()
}

func sizeFlag(name, text string) (int64, error) {
	n, err := banger.ParseSize(text)
	if err != nil {
		return 0, fmt.Errorf("--%s: %w", name, err)
	}
	return n, nil
}

// resolveEnv joins env files and -e in docker's format. Later entries win. An entry that is only KEY takes the value
// of this process's variable, and is dropped if this process does not have the variable.
func resolveEnv(files, flags []string) ([]string, error) {
	var entries []string
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			return nil, banger.Errorf(banger.CodeInvalid, "cannot read the env file: %w", err)
		}
		sc := bufio.NewScanner(f)
		for sc.Scan() {
			if line := strings.TrimLeft(sc.Text(), " \t"); line != "" && line[0] != '#' {
				entries = append(entries, line)
			}
		}
		f.Close()
		if err := sc.Err(); err != nil {
			return nil, banger.Errorf(banger.CodeInvalid, "cannot read the env file %s: %w", name, err)
		}
	}
	var env []string
	for _, e := range flags {
		host.HideArgument(e)
	}
	for _, e := range append(entries, flags...) {
		if !strings.Contains(e, "=") {
			value, ok := os.LookupEnv(e)
			if !ok {
				continue
			}
			e += "=" + value
		}
		env = append(env, e)
	}
	return env, nil
}

func (a *app) runCommand() *cobra.Command {
	var f specFlags
	c := &cobra.Command{
		Use:   "run [flags] IMAGE [--] [COMMAND...]",
		Short: "Create a VM from an image and run a command in it",
		Long: `Create a VM from an image, boot it and run a command in it; the VM stops when the
command ends. Without a command the image's own runs; on a terminal it gets one.
The exit code is the command's; 125 banger failed, 126 the command cannot be run,
127 there is no such command, 128+n it was killed by signal n.`,
		Example: `  banger run debian-bookworm
  banger run --rm -e GREETING=hello debian-bookworm -- sh -c 'echo $GREETING'
  tar c . | banger run --rm -i debian-bookworm -- tar t
  banger run -d --name web --memory 1g docker.io/library/nginx`,
		RunE: func(c *cobra.Command, args []string) error {
			spec, err := f.resolve(c, args)
			if err != nil {
				return runCode(err)
			}
			return runCode(a.run(c.Context(), &f, spec))
		},
	}
	f.register(c)
	c.Flags().BoolVarP(&f.detach, "detach", "d", false, "run in the background and print the VM's id")
	return c
}

func (a *app) run(ctx context.Context, f *specFlags, spec banger.Spec) error {
	terminal := isTerminal(a.stdin) && isTerminal(a.stdout)
	if !f.detach && len(spec.Cmd) == 0 && terminal {
		f.interactive, spec.TTY = true, true
	}
	if spec.TTY && f.interactive && !f.detach && !isTerminal(a.stdin) {
		return banger.Errorf(banger.CodeInvalid, "stdin is not a terminal").WithHint("leave out -t")
	}
	spec.Attach = !f.detach
	client, err := a.connect(ctx)
	if err != nil {
		return err
	}
	vm, err := a.create(ctx, client, spec, true)
	if err != nil {
		return err
	}
	a.refreshSSH(ctx)
	if spec.AutoRemove && !f.detach {
		defer a.refreshSSH(ctx)
	}
	if f.detach {
		a.say(vm.ID)
		return nil
	}
	// From here on, signals go to the command and do not cancel ctx.
	status, err := a.attach(context.WithoutCancel(ctx), vm, f.interactive)
	if errors.Is(err, errInterrupted) {
		if spec.AutoRemove {
			a.forceRemove(vm.ID)
		}
		return &exitError{code: status}
	}
	if err != nil {
		a.forceRemove(vm.ID)
		return err
	}
	if err := a.awaitEnd(ctx, vm.ID); err != nil {
		return err
	}
	if status != 0 {
		return &exitError{code: status}
	}
	return nil
}

// create makes a VM. When it is interrupted, it removes the VM completely before it returns.
func (a *app) create(ctx context.Context, client *api.Client, spec banger.Spec, start bool) (banger.VM, error) {
	var id atomic.Value
	p := a.progress()
	vm, err := client.Create(ctx, spec, start, func(e banger.Event) {
		if e.ID != "" {
			id.Store(e.ID)
		}
		p.emit(e)
	})
	p.close()
	if made, ok := id.Load().(string); ok && ctx.Err() != nil {
		a.forceRemove(made)
	}
	return vm, err
}

// awaitEnd returns when the VM has ended, or at a signal. The daemon may end before the VM does; the command then
// runs on, and awaitEnd starts another daemon.
func (a *app) awaitEnd(ctx context.Context, id string) error {
	// Earlier signals went to the command.
	ctx, stop := signal.NotifyContext(context.WithoutCancel(ctx), os.Interrupt, syscall.SIGTERM)
	defer stop()
	for {
		_, err := a.client.Wait(ctx, id)
		switch banger.CodeOf(err) {
		case banger.CodeNotFound, banger.CodeCanceled:
			return nil
		case banger.CodeUnavailable:
			if _, err := a.connect(ctx); err != nil {
				return err
			}
		default:
			return err
		}
	}
}

// attach starts the VM's main command and copies its stdio.
func (a *app) attach(ctx context.Context, vm banger.VM, interactive bool) (int, error) {
	e := banger.Exec{Main: true, Stdin: interactive, TTY: vm.Spec.TTY}
	return a.session(ctx, vm.ID, vm.Name, e)
}

// session starts a command and runs it until it ends. name is the VM's name as the user knows it.
func (a *app) session(ctx context.Context, ref, name string, e banger.Exec) (int, error) {
	if e.TTY {
		e.Rows, e.Cols = terminalSize(a.stdout)
		if t := os.Getenv("TERM"); t != "" {
			e.Env = append([]string{"TERM=" + t}, e.Env...)
		}
	}
	conn, err := a.client.Exec(ctx, ref, e)
	if err != nil {
		return 0, err
	}
	s := session{conn: conn, stdout: a.stdout, stderr: a.stderr, tty: e.TTY, ping: a.pingOf(ref),
		escaped: make(chan struct{}, 1)}
	s.silence = newSilence(name, "Ctrl-C ends this command", s.ping, a.stderr)
	if e.Stdin {
		s.stdin = a.stdin
	}
	return s.run(ctx)
}

// pingOf returns a function that sends a VM's agent a request which the agent answers at once.
func (a *app) pingOf(ref string) func(context.Context) error {
	return func(ctx context.Context) error {
		_, err := a.client.StatFile(ctx, ref, banger.FileRequest{Op: banger.FileStat, Path: []byte("/")})
		return err
	}
}

// forceRemove stops and removes a VM and returns when it is gone. It is no error if the VM is already gone.
func (a *app) forceRemove(id string) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	a.client.Remove(ctx, id, true)
}

func (a *app) createCommand() *cobra.Command {
	var f specFlags
	c := &cobra.Command{
		Use:   "create [flags] IMAGE [--] [COMMAND...]",
		Short: "Create a VM without starting it",
		RunE: func(c *cobra.Command, args []string) error {
			spec, err := f.resolve(c, args)
			if err != nil {
				return err
			}
			client, err := a.connect(c.Context())
			if err != nil {
				return err
			}
			vm, err := a.create(c.Context(), client, spec, false)
			if err != nil {
				return err
			}
			a.refreshSSH(c.Context())
			a.say(vm.ID)
			return nil
		},
	}
	f.register(c)
	return c
}

func (a *app) execCommand() *cobra.Command {
	var e banger.Exec
	var envFiles []string
	c := &cobra.Command{
		Use:   "exec [flags] VM [--] COMMAND...",
		Short: "Run a command in a running VM",
		Example: `  banger exec -it web bash
  tar c . | banger exec -i web -- tar x -C /srv`,
		ValidArgsFunction: a.completeVMs,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) > 1 && args[1] == "--" {
				args = append(args[:1:1], args[2:]...)
			}
			if len(args) < 2 {
				return runCode(banger.Errorf(banger.CodeInvalid, "exec needs a VM and a command").WithHint("see: banger exec --help"))
			}
			e.Args = args[1:]
			var err error
			if e.Env, err = resolveEnv(envFiles, e.Env); err != nil {
				return runCode(err)
			}
			if e.TTY && e.Stdin && !isTerminal(a.stdin) {
				return runCode(banger.Errorf(banger.CodeInvalid, "stdin is not a terminal").WithHint("leave out -t"))
			}
			if _, err := a.connect(c.Context()); err != nil {
				return runCode(err)
			}
			status, err := a.session(context.WithoutCancel(c.Context()), args[0], args[0], e)
			if errors.Is(err, errInterrupted) || err == nil && status != 0 {
				return &exitError{code: status}
			}
			return runCode(err)
		},
	}
	fs := c.Flags()
	fs.SetInterspersed(false)
	fs.StringArrayVarP(&e.Env, "env", "e", nil, "KEY=VALUE, or KEY to pass this shell's value on")
	fs.StringArrayVar(&envFiles, "env-file", nil, "file of KEY=VALUE lines")
	fs.StringVarP(&e.Dir, "workdir", "w", "", "directory of the command")
	fs.StringVarP(&e.User, "user", "u", "", "user[:group] of the command")
	fs.BoolVarP(&e.Stdin, "interactive", "i", false, "pass stdin to the command")
	fs.BoolVarP(&e.TTY, "tty", "t", false, "give the command a terminal")
	return c
}
