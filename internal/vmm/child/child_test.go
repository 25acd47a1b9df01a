package child_test

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"banger/internal/vmm"
	"banger/internal/vmm/child"
)

// TestTheEndIsKept: of a long output only the end is kept, and its last line is found.
func TestTheEndIsKept(t *testing.T) {
	var tail child.Tail
	for range 1000 {
		io.WriteString(&tail, strings.Repeat("noise\n", 100))
	}
	io.WriteString(&tail, "the first of the last words\nthe last words\n\n")
	if !tail.Contains("the first of") || tail.LastLine() != "the last words" {
		t.Errorf("its last line is %q", tail.LastLine())
	}
	if size := len(child.Held(&tail)); size > 64<<10 {
		t.Errorf("%d bytes are held", size)
	}
}

// TestAWrapperHasItsOwnDescriptors: the wrapper's come first, and the program gets the others.
func TestAWrapperHasItsOwnDescriptors(t *testing.T) {
	own, theirs := pipeWith(t, "for the wrapper"), pipeWith(t, "for the program")
	var console strings.Builder
	p := start(t, child.Command{
		Config: vmm.Config{
			Dir:       t.TempDir(),
			Wrap:      []string{"/bin/sh", "-c", `cat <&3; exec 3<&-; exec "$@"`, "sh"},
			WrapFiles: []*os.File{own},
		},
		Program: "sh", Args: []string{"-c", `echo; cat <&4`}, Files: []*os.File{theirs}, Console: &console})
	<-p.Done()
	if got := console.String(); got != "for the wrapper\nfor the program" {
		t.Errorf("they read %q", got)
	}
}

// TestWorkIsDoneOnTheThreadThatHasStartedTheVMM, until the VMM has ended.
func TestWorkIsDoneOnTheThreadThatHasStartedTheVMM(t *testing.T) {
	p := start(t, child.Command{Config: vmm.Config{Dir: "/"}, Program: "sleep", Args: []string{"1000"},
		Console: io.Discard})
	var threads []int
	for range 3 {
		err := p.Do(func() error {
			threads = append(threads, unix.Gettid())
			return io.ErrNoProgress
		})
		if err != io.ErrNoProgress {
			t.Errorf("the work's error is lost: %v", err)
		}
	}
	if threads[0] == unix.Gettid() || threads[1] != threads[0] || threads[2] != threads[0] {
		t.Errorf("it was done on the threads %d", threads)
	}
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	<-p.Done()
	if err := p.Do(func() error { return nil }); err != os.ErrProcessDone {
		t.Errorf("after the end: %v", err)
	}
}

// TestANamespaceHoldsNothingOfTheHost: a wrapper in namespaces has its caller's ids, and two rights
// over a network namespace that has nothing of the host.
func TestANamespaceHoldsNothingOfTheHost(t *testing.T) {
	if os.Getuid() == 0 {
		asNobody(t, "true", nil)
		return
	}
	var console strings.Builder
	p := start(t, child.Command{
		Config: vmm.Config{Dir: "/", Namespaces: true}, Program: "/bin/sh",
		Args:    []string{"-c", `id -u; wc -l </proc/net/dev; grep CapEff /proc/self/status; cat /proc/self/setgroups`},
		Console: &console})
	<-p.Done()
	want := []string{"65534", "3", "CapEff:", "0000000000003000", "deny"}
	if got := strings.Fields(console.String()); strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("inside it says %q, not %q (%s)", got, want, p.Stderr.LastLine())
	}
}

// asNobody runs the test again as an ordinary user, in a new process with the given attributes.
// Before that, root runs a shell command.
func asNobody(t *testing.T, first string, attributes *syscall.SysProcAttr) {
	t.Helper()
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer self.Close()
	cmd := exec.Command("sh", "-c",
		first+` && exec setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=-all "$@"`,
		"sh", "/proc/self/fd/3", "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.ExtraFiles, cmd.Dir, cmd.SysProcAttr = []*os.File{self}, "/", attributes
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS") {
		t.Errorf("as an ordinary user: %v\n%s", err, out)
	}
}

func start(t *testing.T, c child.Command) *child.Process {
	t.Helper()
	c.Reason = func(*child.Process, *os.ProcessState) vmm.Exit { return vmm.Exit{} }
	c.Ended = func() {}
	p, err := child.Start(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Kill()
		<-p.Done()
	})
	return p
}

func pipeWith(t *testing.T, text string) *os.File {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	io.WriteString(w, text)
	w.Close()
	return r
}

// TestTheNamespacesAsText shows the namespaces of a VMM's wrapper. An ordinary user's wrapper gets
// a user namespace with the same ids, and two rights over the network namespace made in it.
func TestTheNamespacesAsText(t *testing.T) {
	for want, c := range map[string]struct {
		namespaces bool
		uid        int
	}{
		"flags 0 caps [] uids [] gids [] death signal 9 group true":                                         {false, 1000},
		"flags 0x50000000 caps [12 13] uids [{1000 1000 1}] gids [{1000 1000 1}] death signal 9 group true": {true, 1000},
		"flags 0x40000000 caps [] uids [] gids [] death signal 9 group true":                                {true, 0},
	} {
		a := child.Attributes(c.namespaces, c.uid, c.uid)
		got := fmt.Sprintf("flags %#x caps %v uids %v gids %v death signal %d group %t", a.Cloneflags, a.AmbientCaps,
			a.UidMappings, a.GidMappings, int(a.Pdeathsig), a.Setpgid)
		if got = strings.Replace(got, "flags 0x0 ", "flags 0 ", 1); got != want {
			t.Errorf("it is\n%s\nnot\n%s", got, want)
		}
	}
}

// TestUserNamespacesSwitchedOff checks that the error names both remedies.
func TestUserNamespacesSwitchedOff(t *testing.T) {
	if os.Getuid() == 0 { // enter a namespace in which no other can be made, as an ordinary user
		ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 65536}}
		asNobody(t, "echo 0 >/proc/sys/user/max_user_namespaces",
			&syscall.SysProcAttr{
				Cloneflags:                 syscall.CLONE_NEWUSER,
				UidMappings:                ids,
				GidMappings:                ids,
				GidMappingsEnableSetgroups: true,
			})
		return
	}
	limit, err := os.ReadFile("/proc/sys/user/max_user_namespaces")
	if err != nil || strings.TrimSpace(string(limit)) != "0" {
		t.Skip("root's run of this test switches them off")
	}
	_, err = child.Start(child.Command{
		Config:  vmm.Config{Dir: "/", Namespaces: true},
		Program: "/bin/true",
		Console: io.Discard,
	})
	for _, want := range []string{"this host lets no ordinary user make a user namespace",
		"sysctl user.max_user_namespaces", "--vmm=qemu"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the error is %v, without %q", err, want)
		}
	}
}
