// Package git runs the host's git on repositories of which no word is believed: those of users, whose hooks and
// filters must not run, and those that hold what a guest has made. Every call has an environment and a configuration
// of its own. A repository cannot make git start another program, read a file elsewhere or reach a network.
//
// The package must not know what a workspace is.
package git

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/text"
)

// The oldest version of git that this package uses.
const (
	oldestMajor = 2
	oldestMinor = 30
)

// killTime is how long git may take to end after its context has ended.
const killTime = 5 * time.Second

// Git runs git in one directory.
type Git struct {
	Dir string // where it runs
	// Env are variables beside those that all calls have, such as GIT_INDEX_FILE=PATH.
	Env []string
	// Config are settings beside those that all calls have, such as core.autocrlf=input.
	Config []string
	// Bounded limits the memory of git, which reads what a guest has made.
	Bounded bool
}

// Bounds of one git.
const (
	maxMemory = 8 << 30   // bytes of addresses, if it is Bounded
	maxOutput = 512 << 20 // bytes that a caller takes at once
)

// settings switch off everything by which a repository can make git start a program or reach others (git-config(1)).
// They come on the command line, which beats all files.
var settings = []string{
	"core.hooksPath=/dev/null", "core.fsmonitor=false", "core.attributesFile=/dev/null", "core.excludesFile=/dev/null",
	"core.pager=cat", "core.editor=false", "core.askPass=", "core.sshCommand=false", "core.gitProxy=false",
	"core.alternateRefsCommand=true", "core.untrackedCache=false", "core.splitIndex=false", "core.fsync=none",
	"core.logAllRefUpdates=false", "core.quotePath=false", "core.protectHFS=true", "core.protectNTFS=true",
	"core.commentChar=#", "core.bigFileThreshold=32m", "core.packedGitLimit=512m", "core.deltaBaseCacheLimit=64m",
	"pack.threads=1", "pack.windowMemory=256m", "pack.writeBitmaps=false", "pack.writeReverseIndex=false",
	"credential.helper=", "diff.external=", "diff.noprefix=false", "diff.mnemonicPrefix=false", "diff.renames=true",
	"diff.submodule=short", "diff.ignoreSubmodules=none", "color.ui=never", "commit.gpgSign=false", "tag.gpgSign=false",
	"log.showSignature=false", "gc.auto=0", "maintenance.auto=false", "fetch.recurseSubmodules=false",
	"submodule.recurse=false", "protocol.allow=never", "protocol.file.allow=user", "advice.detachedHead=false",
	"index.version=2", "fetch.unpackLimit=1", "index.sparse=false", "init.defaultBranch=main", "feature.manyFiles=false",
	"trace2.eventTarget=0",
	"trace2.normalTarget=0", "trace2.perfTarget=0",
}

// environment is that of every git. Nothing of this process's own environment reaches it but the path of programs.
func environment() []string {
	return []string{
		"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent", "XDG_CONFIG_HOME=/nonexistent", "LC_ALL=C", "TZ=UTC",
		"GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null", "GIT_ATTR_NOSYSTEM=1",
		"GIT_TERMINAL_PROMPT=0", "GIT_ASKPASS=false", "SSH_ASKPASS=false", "GIT_SSH_COMMAND=false", "GIT_EDITOR=false",
		"GIT_OPTIONAL_LOCKS=0", "GIT_NO_REPLACE_OBJECTS=1", "GIT_NO_LAZY_FETCH=1", "GIT_PROTOCOL_FROM_USER=1",
		"GIT_LITERAL_PATHSPECS=1", "GIT_DISCOVERY_ACROSS_FILESYSTEM=1",
		"GIT_AUTHOR_NAME=banger", "GIT_AUTHOR_EMAIL=banger@localhost",
		"GIT_COMMITTER_NAME=banger", "GIT_COMMITTER_EMAIL=banger@localhost",
	}
}

// Failure is the end of a git that did not succeed.
type Failure struct {
	Command string // such as rev-parse
	Code    int    // its exit code, or -1
	Said    string // on stderr, printable and bounded
}

func (f *Failure) Error() string {
	said := f.Said
	if said == "" {
		said = fmt.Sprintf("it ended with code %d", f.Code)
	}
	return fmt.Sprintf("git %s failed: %s", f.Command, said)
}

// With returns g with more variables.
func (g Git) With(env ...string) Git {
	g.Env = append(g.Env[:len(g.Env):len(g.Env)], env...)
	return g
}

// Set returns g with more settings.
func (g Git) Set(config ...string) Git {
	g.Config = append(g.Config[:len(g.Config):len(g.Config)], config...)
	return g
}

// command returns git with arguments. The first one is the name of its command.
func (g Git) command(ctx context.Context, args []string) *exec.Cmd {
	all := []string{"--no-pager"}
	for _, s := range settings {
		all = append(all, "-c", s)
	}
	for _, s := range g.Config {
		all = append(all, "-c", s)
	}
	cmd := exec.CommandContext(ctx, "git", append(all, args...)...)
	cmd.Dir, cmd.Env, cmd.WaitDelay = g.Dir, append(environment(), g.Env...), killTime
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	return cmd
}

// Run runs git with in as its stdin and out as its stdout; both may be nil. It returns a *Failure if git does not
// succeed.
func (g Git) Run(ctx context.Context, in io.Reader, out io.Writer, args ...string) error {
	cmd := g.command(ctx, args)
	said := &tail{}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = in, out, said
	err := cmd.Start()
	if err == nil {
		if g.Bounded {
			limit := &unix.Rlimit{Cur: maxMemory, Max: maxMemory}
			unix.Prlimit(cmd.Process.Pid, unix.RLIMIT_AS, limit, nil) // it may have ended already
		}
		err = cmd.Wait()
	}
	return g.explain(ctx, err, args[0], said)
}

// explain turns the error of a git into one for people.
func (g Git) explain(ctx context.Context, err error, command string, said *tail) error {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, exec.ErrNotFound):
		return absent()
	case errors.As(err, &exit):
		return &Failure{Command: command, Code: exit.ExitCode(), Said: said.String()}
	}
	return fmt.Errorf("running git %s: %w", command, banger.Cause(err))
}

// Output returns what git writes, without the line end at its end.
func (g Git) Output(ctx context.Context, args ...string) (string, error) {
	return g.Filter(ctx, "", args...)
}

// Filter is Output for a git that reads a text.
func (g Git) Filter(ctx context.Context, in string, args ...string) (string, error) {
	out, err := g.Bytes(ctx, in, args...)
	return strings.TrimSuffix(string(out), "\n"), err
}

// Bytes is Filter for an output of which every byte counts.
func (g Git) Bytes(ctx context.Context, in string, args ...string) ([]byte, error) {
	var out limited
	err := g.Run(ctx, strings.NewReader(in), &out, args...)
	if out.over {
		return nil, banger.Errorf(banger.CodeInvalid, "git %s says more than %d MiB", args[0], maxOutput>>20).
			WithHint("the tree has too many files")
	}
	return out.Buffer.Bytes(), err
}

// limited keeps at most maxOutput bytes.
type limited struct {
	bytes.Buffer
	over bool
}

func (l *limited) Write(p []byte) (int, error) {
	if l.Len()+len(p) > maxOutput {
		l.over = true
		return 0, io.ErrShortWrite
	}
	return l.Buffer.Write(p)
}

// Fields returns the parts of what git writes between zero bytes.
func (g Git) Fields(ctx context.Context, in string, args ...string) ([]string, error) {
	out, err := g.Filter(ctx, in, args...)
	if err != nil || out == "" {
		return nil, err
	}
	return strings.Split(strings.TrimSuffix(out, "\x00"), "\x00"), nil
}

// Pipe runs a git whose stdout is the stdin of another one. It returns the first error.
func Pipe(ctx context.Context, from Git, first []string, in io.Reader, to Git, second []string, out io.Writer) error {
	r, w, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("connecting two gits: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 1)
	go func() { // ends with the first git
		err := from.Run(ctx, in, w, first...)
		w.Close()
		ended <- err
	}()
	err = to.Run(ctx, r, out, second...)
	r.Close()
	if err != nil {
		cancel()
	}
	if ferr := <-ended; ferr != nil && !(err != nil && errors.Is(ferr, context.Canceled)) {
		return ferr
	}
	return err
}

// tail keeps the first lines of what a git says.
type tail struct{ b []byte }

func (t *tail) Write(p []byte) (int, error) {
	t.b = append(t.b, p[:min(len(p), max(0, 4<<10-len(t.b)))]...)
	return len(p), nil
}

// String returns the lines as one printable line without git's own word for an error.
func (t *tail) String() string {
	said := strings.TrimSpace(string(t.b))
	return text.Limit(strings.TrimPrefix(strings.TrimPrefix(said, "fatal: "), "error: "), 400)
}

var versionWords = regexp.MustCompile(`^git version (\d+)\.(\d+)`)

// Check returns an error unless this host has a git that is new enough.
func Check(ctx context.Context) error {
	out, err := Git{Dir: "/"}.Output(ctx, "version")
	if err != nil {
		return err
	}
	m := versionWords.FindStringSubmatch(out)
	if m == nil {
		return absent()
	}
	major, _ := strconv.Atoi(m[1])
	minor, _ := strconv.Atoi(m[2])
	if major < oldestMajor || major == oldestMajor && minor < oldestMinor {
		return banger.Errorf(banger.CodeUnavailable, "git %s.%s of this host is too old, and %d.%d is needed", m[1], m[2],
			oldestMajor, oldestMinor).WithHint("install a newer git")
	}
	return nil
}

func absent() error {
	return banger.Errorf(banger.CodeUnavailable, "workspaces need git, and this host has none").
		WithHint("install git %d.%d or later", oldestMajor, oldestMinor)
}
