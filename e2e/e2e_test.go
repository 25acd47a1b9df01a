// Package e2e tests banger's stories as a user types them: with the real binary, real images and
// real boots. It must not know banger's internals. Beyond the command line it uses only processes,
// files and a registry on loopback.
package e2e

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// prepared is a state directory with a kernel and the catalogue's images. banger itself makes it
// once per run, unless BANGER_E2E_STATE names one. Each story starts from hard links of its files.
var prepared string

// binDir is the directory of the banger under test, and repository that of its sources, if they are here.
var binDir, repository string

// firecracker is the directory of the Firecracker for the stories about it. "jailed" below it has a
// Firecracker with its jailer. Both are the double, unless make test-kvm names a real one. The
// version is the one that the program prints.
var firecracker, firecrackerVersion string

// realFirecracker is the directory of a real Firecracker, or "". If it is set, KVM works.
const realFirecracker = "BANGER_E2E_FIRECRACKER"

func findFirecracker() (dir, version string, err error) {
	if dir = os.Getenv(realFirecracker); dir == "" {
		dir = filepath.Join(binDir, "double")
	}
	out, err := exec.Command(filepath.Join(dir, "firecracker"), "--version").Output()
	if err != nil {
		return "", "", err
	}
	line, _, _ := strings.Cut(string(out), "\n")
	version, ok := strings.CutPrefix(line, "Firecracker v")
	if !ok {
		return "", "", fmt.Errorf("%s/firecracker calls itself %q", dir, line)
	}
	return dir, version, nil
}

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	if flag.Parse(); testing.Short() {
		return m.Run()
	}
	var err error
	if binDir, err = filepath.Abs("../bin"); err == nil {
		repository = filepath.Dir(binDir)
		_, err = os.Stat(filepath.Join(binDir, "banger"))
	}
	if err == nil {
		firecracker, firecrackerVersion, err = findFirecracker()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e: run `make build double` first:", err)
		return 1
	}
	syscall.Umask(0o022)
	base, err := os.MkdirTemp("/tmp", "banger-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		return 1
	}
	defer os.RemoveAll(base)
	os.Chmod(base, 0o711) // root's VMs run as their own users and open files by path
	os.Setenv("TMPDIR", base)
	os.Setenv("npm_config_registry", npmRegistry())
	os.Setenv("PATH", binDir+":"+os.Getenv("PATH")+":/usr/sbin:/sbin")
	if prepared = os.Getenv("BANGER_E2E_STATE"); prepared == "" {
		prepared, err = prepare(base)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		return 1
	}
	if slow, err := emulated(); err == nil && slow {
		fmt.Println("e2e: guests are emulated") // scripts/stories reads it
	}
	return m.Run()
}

// givenImages names a directory with a kernel and the catalogue's images. The stories take them instead of making
// their own. They belong to the user who runs the stories.
const givenImages = "BANGER_E2E_IMAGES"

// prepare makes the kernel, the images and the templates that most stories share.
func prepare(base string) (string, error) {
	state := filepath.Join(base, "prepared")
	w := world{state: state, run: filepath.Join(base, "pr"), templates: "now"}
	defer func() { w.command(context.Background(), "daemon", "stop").Run() }() // also after an error
	if given := os.Getenv(givenImages); given != "" {
		if err := linkTree(given, state); err != nil {
			return "", err
		}
	} else if err := w.pullAll(); err != nil {
		return "", err
	}
	for _, image := range catalogue {
		if err := w.say("run", "--rm", image, "true"); err != nil {
			return "", err
		}
	}
	if err := w.awaitTemplates(len(catalogue)); err != nil {
		return "", err
	}
	if err := w.say("daemon", "stop"); err != nil {
		return "", err
	}
	// Each story needs its own port for names, not that of this daemon.
	return state, os.Remove(filepath.Join(state, "dns.port"))
}

// catalogue is the images that most stories share.
var catalogue = []string{"debian-bookworm", "debian-bookworm-dev"}

// pullAll makes the kernel and the catalogue's images, the images at once: each keeps one CPU busy.
func (w *world) pullAll() error {
	if err := w.say("kernel", "pull"); err != nil {
		return err
	}
	errs := make([]error, len(catalogue))
	var wg sync.WaitGroup
	for i, image := range catalogue {
		wg.Go(func() { errs[i] = w.say("image", "pull", image) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// say runs banger, and says how long it took.
func (w *world) say(args ...string) error {
	start := time.Now()
	out, err := w.command(context.Background(), args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("banger %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	fmt.Printf("e2e: banger %s: %.1f s\n", strings.Join(args, " "), time.Since(start).Seconds())
	return nil
}

// awaitTemplates waits until there are n templates. The daemon would make none any more after its end.
func (w *world) awaitTemplates(n int) error {
	var out []byte
	ok := poll(5*time.Minute, func() bool {
		out, _ = w.command(context.Background(), "warm", "ls", "-q").Output()
		return len(strings.Fields(string(out))) == n
	})
	if !ok {
		return fmt.Errorf("there are not %d templates, but %q", n, out)
	}
	return nil
}

// onlyDiffering is set to 1 to run only the stories that differ as root, which say so in a comment. scripts/test runs
// all stories as an ordinary user.
const onlyDiffering = "BANGER_E2E_ONLY_DIFFERING"

// onlySlow is set to 1 to run the stories that take long, instead of the others.
const onlySlow = "BANGER_E2E_ONLY_SLOW"

// stories returns the files of the stories to run.
func stories(t *testing.T) (files []string) {
	t.Helper()
	pattern := "testdata/*.txtar"
	if os.Getenv(onlySlow) == "1" {
		pattern = "testdata/slow/*.txtar"
	}
	all, err := filepath.Glob(pattern)
	if err != nil || len(all) == 0 {
		t.Fatalf("there are no stories: %v", err)
	}
	for _, file := range all {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if os.Getenv(onlyDiffering) != "1" || strings.Contains(string(text), "\n# As root too: ") {
			files = append(files, file)
		}
	}
	slices.SortStableFunc(files, func(a, b string) int { return rank(b) - rank(a) }) // Go starts the last one first
	return files
}

// long is the stories that take about a minute or more, the longest first. They start first. Otherwise a CPU would be
// idle while the last one runs.
var long = []string{"work", "idle", "suspend-databases", "agents", "warm", "warm-booted", "firecracker", "proxy",
	"frozen", "secret", "work-config"}

// rank is the place of a story's file in long.
func rank(file string) int {
	i := slices.Index(long, strings.TrimSuffix(filepath.Base(file), ".txtar"))
	if i < 0 {
		return len(long)
	}
	return i
}

// emulated reports whether banger emulates guests here, because KVM does not work or is switched off.
var emulated = sync.OnceValues(func() (bool, error) {
	w, err := newWorld()
	if err != nil {
		return false, err
	}
	defer w.close()
	if err := w.command(context.Background(), "ps").Run(); err != nil { // it starts the daemon
		return false, err
	}
	out, err := w.command(context.Background(), "version", "--format", "json").Output()
	if err != nil {
		return false, err
	}
	var v struct{ Daemon struct{ KVM string } }
	err = json.Unmarshal(out, &v)
	return v.Daemon.KVM != "usable", err
})

// storyTime is the time after which a story is ended. The longest ones take half of it on a busy machine.
const storyTime = 8 * time.Minute

// abort kills the VMs of a story that takes too long, so that the command which waits for one of them fails.
func (w *world) abort() {
	out, _ := w.command(context.Background(), "ps", "-a").CombinedOutput()
	fmt.Printf("e2e: a story has taken %s; its VMs are killed:\n%s", storyTime, out)
	for _, p := range w.processes() {
		if len(p.args) > 1 && p.args[1] == "shim" {
			fmt.Printf("%.200q\n", p.args)
			syscall.Kill(p.pid, syscall.SIGKILL)
		}
	}
}

func TestStories(t *testing.T) {
	if testing.Short() {
		t.Skip("stories boot real guests; go test without -short runs them")
	}
	testscript.Run(t, testscript.Params{
		Files:               stories(t),
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			w, err := newWorld()
			if err != nil {
				return err
			}
			env.Values["world"] = w
			for _, kv := range w.env() {
				k, v, _ := strings.Cut(kv, "=")
				env.Setenv(k, v)
			}
			env.Setenv("PATH", os.Getenv("PATH"))
			env.Setenv("STATE", w.state)
			env.Setenv("CYCLES", os.Getenv("CYCLES")) // of suspend-databases
			env.Setenv("BANGER_SEED", os.Getenv("BANGER_SEED"))
			env.Setenv("npm_config_registry", os.Getenv("npm_config_registry"))
			env.Setenv("REPOSITORY", repository)
			env.Setenv("DOUBLE", filepath.Join(binDir, "double"))
			env.Setenv("FIRECRACKER", firecracker)
			env.Setenv("FIRECRACKER_VERSION", firecrackerVersion)
			env.Setenv("USER", fmt.Sprint(os.Getuid()))
			env.Setenv("WHO", map[bool]string{true: "root", false: "user"}[os.Geteuid() == 0])
			limit := time.AfterFunc(storyTime, w.abort)
			env.Defer(func() {
				limit.Stop()
				if err := w.close(); err != nil {
					env.T().Fatal(err)
				}
			})
			return nil
		},
		Cmds: commands,
		Condition: func(cond string) (bool, error) {
			switch cond {
			case "root":
				return os.Geteuid() == 0, nil
			case "kvm":
				return os.Getenv(realFirecracker) != "", nil
			case "emulated":
				return emulated()
			}
			return false, fmt.Errorf("unknown condition %q", cond)
		},
	})
}

// world is one banger installation, with its own state and run directories.
type world struct {
	dir, state, run string
	templates       string // what the daemon does about them; "" means that it uses those that are prepared
	stopRegistry    func()
}

func newWorld() (*world, error) {
	dir, err := os.MkdirTemp(os.Getenv("TMPDIR"), "w")
	if err != nil {
		return nil, err
	}
	w := &world{dir: dir, state: filepath.Join(dir, "s"), run: filepath.Join(dir, "r")}
	if err := os.Chmod(dir, 0o711); err != nil {
		return nil, err
	}
	return w, linkTree(prepared, w.state)
}

// linkTree copies the tree from to to. It makes hard links of files that are never written again,
// and leaves out what belongs to a daemon.
func linkTree(from, to string) error {
	return filepath.WalkDir(from, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		dst := filepath.Join(to, rel)
		switch {
		case d.IsDir():
			info, err := d.Info()
			if err != nil {
				return err
			}
			return os.MkdirAll(dst, info.Mode().Perm())
		case filepath.Dir(rel) == "." && (strings.HasPrefix(rel, "banger.db") || strings.HasPrefix(rel, "daemon.")):
			return nil
		case strings.HasSuffix(rel, ".json"): // replaced, never edited, yet small
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			return os.WriteFile(dst, data, 0o644)
		}
		return os.Link(path, dst)
	})
}

func (w *world) env() []string {
	templates := cmp.Or(w.templates, "use")
	return []string{"BANGER_STATE_DIR=" + w.state, "BANGER_RUN_DIR=" + w.run, "BANGER_TEMPLATES=" + templates}
}

func (w *world) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(binDir, "banger"), args...)
	cmd.Env = append(os.Environ(), w.env()...)
	return cmd
}

// close ends the world: it removes every VM and every snapshot, stops the daemon, and checks that nothing of them is
// left.
func (w *world) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	err := errors.Join(w.removeAll(ctx, "ps -aq", "rm -f"), w.removeAll(ctx, "snapshot ls -q", "snapshot rm"))
	var left []string
	poll(5*time.Second, func() bool { left = w.residue(); return len(left) == 0 })
	if out, stopErr := w.command(ctx, "daemon", "stop").CombinedOutput(); stopErr != nil {
		err = errors.Join(err, fmt.Errorf("daemon stop: %w: %s", stopErr, out))
	}
	if len(left) > 0 {
		err = errors.Join(err, fmt.Errorf("left behind after rm: %s", strings.Join(left, ", ")))
	}
	if procs := w.processes(); len(procs) > 0 {
		err = errors.Join(err, fmt.Errorf("still running after daemon stop: %v", procs))
		for _, p := range procs {
			syscall.Kill(p.pid, syscall.SIGKILL)
		}
	}
	return errors.Join(err, os.RemoveAll(w.dir))
}

// removeAll removes what a command lists by another command.
func (w *world) removeAll(ctx context.Context, list, remove string) error {
	ids, err := w.command(ctx, strings.Fields(list)...).Output()
	if err != nil || len(strings.Fields(string(ids))) == 0 {
		return err
	}
	args := append(strings.Fields(remove), strings.Fields(string(ids))...)
	if out, err := w.command(ctx, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", remove, err, out)
	}
	return nil
}

type process struct {
	pid  int
	args []string
}

// processes returns the processes that name a directory of this world in their command line or
// environment, or whose working directory or root is a VM's directory. It leaves out this test
// itself.
func (w *world) processes() []process {
	var found []process
	daemon := w.daemon()
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		cmdline, _ := os.ReadFile(filepath.Join(dir, "cmdline"))
		environ, _ := os.ReadFile(filepath.Join(dir, "environ"))
		mounts, _ := os.ReadFile(filepath.Join(dir, "mountinfo"))
		cwd, _ := os.Readlink(filepath.Join(dir, "cwd"))
		isDaemon := filepath.Base(dir) == daemon && strings.HasPrefix(string(cmdline), "banger\x00daemon\x00")
		if !isDaemon && !strings.Contains(string(cmdline), w.dir) &&
			!strings.HasPrefix(cwd, filepath.Join(w.dir, "r", "vms")+"/") && !strings.Contains(string(environ), w.state) &&
			!strings.Contains(string(mounts), w.state+"/jail/") {
			continue
		}
		var pid int
		fmt.Sscan(filepath.Base(dir), &pid)
		if pid != os.Getpid() {
			found = append(found, process{pid, strings.Split(strings.TrimRight(string(cmdline), "\x00"), "\x00")})
		}
	}
	return found
}

// daemon returns the pid of the daemon that uses, or used, the state directory. Even its own user
// cannot read its environment.
func (w *world) daemon() string {
	var owner struct{ PID int }
	data, _ := os.ReadFile(filepath.Join(w.state, "daemon.lock"))
	json.Unmarshal(data, &owner)
	return fmt.Sprint(owner.PID)
}

// residue lists what an idle daemon would not have: shims, VMMs, files of VMs, snapshots, layers of disks, unfinished
// images and kernels, mounts.
func (w *world) residue() []string {
	var left []string
	for _, p := range w.processes() {
		if len(p.args) > 1 && p.args[1] == "daemon" {
			continue
		}
		left = append(left, fmt.Sprintf("process %d %.120q", p.pid, p.args))
	}
	for _, pattern := range []string{"s/vms/*", "s/snapshots/*", "s/layers/*", "r/vms/*", "s/jail",
		"s/images/sha256/.tmp-*", "s/kernels/.tmp-*", "s/images/.tmp-*"} {
		names, _ := filepath.Glob(filepath.Join(w.dir, pattern))
		left = append(left, names...)
	}
	mounts, _ := os.ReadFile("/proc/self/mounts")
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, w.dir) {
			left = append(left, "mount "+line)
		}
	}
	return left
}
