package command

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"banger"
)

// DefaultPath is the PATH of a command that sets none.
const DefaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Options say how a command is started, beyond what a banger.Exec says.
type Options struct {
	File   string              // the program, whatever the first argument is; "": the first argument names it
	Modes  func(*unix.Termios) // changes the modes of the terminal; nil leaves the kernel's own
	Helper bool                // the program is a part of the agent, and runs outside of the commands' group

	// Group is the name of a control group for the command alone; "" means that of all commands.
	Group string

	Confine banger.Confinement // what the command may do and use
}

// Start starts e. The code of its error says whether the command is absent or cannot
// run. Only one goroutine may call Start at a time.
func (r *Reaper) Start(e banger.Exec, how Options) (*Process, error) {
	user, err := LookUp(e.User)
	if err != nil {
		return nil, err
	}
	env := completeEnv(e, user)
	dir := e.Dir
	if dir == "" {
		dir = "/"
	}
	if err := checkDir(dir); err != nil {
		return nil, err
	}
	file := how.File
	if file == "" {
		if file, err = findProgram(e.Args[0], dir, envValue(env, "PATH")); err != nil {
			return nil, err
		}
	}
	p := &Process{done: make(chan struct{})}
	files, err := p.makeStdio(e)
	if err != nil {
		return nil, banger.Errorf(banger.CodeCannotRun, "no stdio for the command: %w", err)
	}
	attr := &syscall.ProcAttr{Dir: dir, Env: env, Files: files, Sys: &syscall.SysProcAttr{Setsid: true}}
	if os.Geteuid() == 0 { // else a test runs as an ordinary user
		attr.Sys.Credential = &syscall.Credential{Uid: user.UID, Gid: user.GID, Groups: user.allGroups()}
	}
	if e.TTY {
		attr.Sys.Setctty, attr.Sys.Ctty = true, 0
		unix.Fchown(int(files[0]), int(user.UID), -1)
		setModes(int(files[0]), how.Modes)
	}
	group, args := r.group, e.Args
	if how.Helper {
		group = nil
	}
	var own *confined
	if how.Confine.OfProcess() && !how.Helper {
		if own, file, args, err = confine(how.Confine, user, file, args, attr); err != nil {
			closeAll(files)
			p.Close()
			return nil, err
		}
	}
	p.mu.Lock() // until pid is set, an end must wait
	p.pid, p.group, err = group.start(how.Group, attr, func() (int, error) { return r.fork(file, args, attr, p.onEnd) })
	p.mu.Unlock()
	if own != nil {
		err = own.result(err)
	}
	closeAll(files)
	if err != nil {
		p.Close()
		return nil, startError(e.Args[0], err)
	}
	return p, nil
}

// checkDir returns an error if dir is not a directory. The host has made those that the image and the VM name.
func checkDir(dir string) error {
	st, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return banger.Errorf(banger.CodeCannotRun, "the working directory %q does not exist", dir)
	case errors.Is(err, unix.ENOTDIR), err == nil && !st.IsDir():
		return banger.Errorf(banger.CodeCannotRun, "the working directory %q is not a directory", dir)
	case err != nil:
		return banger.Errorf(banger.CodeCannotRun, "the working directory %q cannot be used: %w", dir, banger.Cause(err))
	}
	return nil
}

// completeEnv adds what every command may expect and e does not set.
func completeEnv(e banger.Exec, user User) []string {
	env := append([]string(nil), e.Env...)
	add := func(key, value string) {
		if envValue(env, key) == "" {
			env = append(env, key+"="+value)
		}
	}
	add("PATH", DefaultPath)
	add("HOME", user.Home)
	if host, err := os.Hostname(); err == nil {
		add("HOSTNAME", host)
	}
	if e.TTY {
		add("TERM", "xterm")
	}
	return env
}

func envValue(env []string, key string) string {
	for _, kv := range env {
		if v, ok := strings.CutPrefix(kv, key+"="); ok {
			return v
		}
	}
	return ""
}

// findProgram searches as execvp(3) does, in the command's own PATH.
func findProgram(name, dir, pathList string) (string, error) {
	if strings.Contains(name, "/") {
		if !path.IsAbs(name) {
			name = path.Join(dir, name)
		}
		return name, nil // exec says what is wrong with it
	}
	denied := false
	for d := range strings.SplitSeq(pathList, ":") {
		if d == "" {
			d = "."
		}
		if !path.IsAbs(d) {
			d = path.Join(dir, d)
		}
		var st unix.Stat_t
		candidate := path.Join(d, name)
		if unix.Stat(candidate, &st) != nil || st.Mode&unix.S_IFMT == unix.S_IFDIR {
			continue
		}
		if st.Mode&0o111 != 0 {
			return candidate, nil
		}
		denied = true
	}
	if denied {
		return "", startError(name, unix.EACCES)
	}
	return "", banger.Errorf(banger.CodeCommandAbsent, "there is no command %q in the image's PATH", name)
}

func startError(name string, err error) error {
	if _, ok := errors.AsType[*banger.Error](err); ok {
		return err
	}
	if err == unix.ENOENT || err == unix.ENOTDIR {
		return banger.Errorf(banger.CodeCommandAbsent, "there is no command %q, or its interpreter is missing", name)
	}
	return banger.Errorf(banger.CodeCannotRun, "the command %q cannot be run: %w", name, err)
}
