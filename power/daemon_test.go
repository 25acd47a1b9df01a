//go:build power

package power

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"banger/internal/api/client"
)

// patience is the time limit of each wait for a daemon.
const patience = time.Minute

// daemon is a real daemon, of bin/banger.
type daemon struct {
	api *client.Client
	cmd *exec.Cmd
	log string
	run string

	state  string
	noSync bool
}

func (b *daemon) home() string { return filepath.Join(filepath.Dir(b.state), "home") }

// banger runs the CLI for a user whose home directory is beside the state directory.
func (b *daemon) banger(ctx context.Context, args ...string) error {
	home := b.home()
	if err := os.MkdirAll(home, 0o700); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, b.cmd.Args[slices.Index(b.cmd.Args, "daemon")-1], args...)
	cmd.Dir, cmd.Env = home, append(b.cmd.Environ(), "HOME="+home)
	if b.noSync {
		cmd.Args = append(slices.Clone(withoutSync), cmd.Args...)
		cmd.Path = "/usr/bin/strace"
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// withoutSync is the start of a command in which fsync does nothing and succeeds.
var withoutSync = []string{"strace", "-f", "-qqq", "--seccomp-bpf", "-o", "/dev/null",
	"-e", "trace=fsync,fdatasync,sync_file_range,msync", "-e", "inject=fsync,fdatasync,sync_file_range,msync:retval=0"}

// startDaemon starts a daemon in the state directory. With noSync its fsync does nothing and
// succeeds.
func startDaemon(t *testing.T, state string, noSync bool, env []string) *daemon {
	t.Helper()
	var argv []string
	if noSync {
		argv = slices.Clone(withoutSync)
	}
	b, err := startArgv(argv, state, env)
	check(t, err)
	b.noSync = noSync
	return b
}

// startAfterCut starts a daemon as after a boot of the host: it changes the stored boot id first.
func startAfterCut(state string) (*daemon, error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return nil, err
	}
	for _, name := range []string{"boot-id", "images/open.json"} {
		path := filepath.Join(state, name)
		data, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) && name == "images/open.json" {
			continue // the daemon had ended before
		}
		if err == nil {
			err = os.WriteFile(path, bytes.ReplaceAll(data, bytes.TrimSpace(boot), []byte("another-boot")), 0o600)
		}
		if err != nil {
			return nil, err
		}
	}
	return startArgv(nil, state, nil)
}

func startArgv(argv []string, state string, env []string) (*daemon, error) {
	banger, err := filepath.Abs("../bin/banger")
	if err != nil {
		return nil, err
	}
	b := &daemon{state: state}
	if b.run, err = os.MkdirTemp("", "bp-"); err != nil {
		return nil, err
	}
	argv = append(argv, banger, "daemon", "run")
	b.cmd = exec.Command(argv[0], argv[1:]...)
	b.cmd.Env = append(os.Environ(), "BANGER_STATE_DIR="+state, "BANGER_RUN_DIR="+filepath.Join(b.run, "r"),
		"BANGER_ACCEL=tcg")
	b.cmd.Env = append(b.cmd.Env, env...)
	b.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	stderr, err := b.cmd.StderrPipe()
	if err == nil {
		err = b.cmd.Start()
	}
	if err != nil {
		os.RemoveAll(b.run)
		return nil, err
	}
	ready := make(chan bool, 1)
	go func() { // ends with the daemon
		lines := bufio.NewScanner(stderr)
		for lines.Scan() {
			if strings.Contains(lines.Text(), "daemon is ready") {
				ready <- true
				io.Copy(io.Discard, stderr)
				return
			}
			b.log += lines.Text() + "\n"
		}
		close(ready)
	}()
	select {
	case ok := <-ready:
		if !ok {
			err = fmt.Errorf("the daemon does not start: %s", b.log)
		}
	case <-time.After(patience):
		err = fmt.Errorf("the daemon is not ready after %v", patience)
	}
	if err != nil {
		b.kill()
		return nil, err
	}
	b.api = client.New(filepath.Join(b.run, "r", "api.sock"))
	return b, nil
}

func (b *daemon) kill() {
	syscall.Kill(-b.cmd.Process.Pid, syscall.SIGKILL)
	b.cmd.Wait()
	os.RemoveAll(b.run)
}

// end asks the daemon to end.
func (b *daemon) end() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if _, err := b.api.Shutdown(ctx); err != nil {
		b.kill()
		return err
	}
	err := b.cmd.Wait()
	os.RemoveAll(b.run)
	return err
}

func (b *daemon) stop(t *testing.T) {
	t.Helper()
	if err := b.end(); err != nil {
		t.Error(err)
	}
}
