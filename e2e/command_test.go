package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// commands are the commands of the stories in addition to testscript's own.
var commands = map[string]func(*testscript.TestScript, bool, []string){
	"clock":      cmdClock,
	"code":       cmdCode,
	"residue":    cmdResidue,
	"killdaemon": cmdKillDaemon,
	"killshim":   cmdKillShim,
	"killvmm":    cmdKillVMM,
	"namespaces": cmdNamespaces,
	"await":      cmdAwait,
	"interrupt":  cmdInterrupt,
	"crash":      cmdCrash,
	"registry":   cmdRegistry,
	"silent":     cmdSilent,
	"mkimage":    cmdMkimage,
	"resize":     cmdResize,
	"json":       cmdJSON,
	"ask":        cmdAsk,
	"tlsserver":  cmdTLSServer,
	"httpproxy":  cmdHTTPProxy,
	"fetch":      cmdFetch,
	"datagram":   cmdDatagram,
	"http":       cmdHTTP,
	"editor":     cmdEditor,
	"tunnel":     cmdTunnel,
	"model":      cmdModel,
	"asked":      cmdAsked,
	"zed":        cmdZed,
	"zed2":       cmdZed2,
	"toolserver": cmdToolServer,
}

func theWorld(ts *testscript.TestScript) *world {
	w, ok := ts.Value("world").(*world)
	if !ok {
		ts.Fatalf("no world")
	}
	return w
}

func refuse(ts *testscript.TestScript, neg bool, bad bool, usage string) {
	if neg || bad {
		ts.Fatalf("usage: %s", usage)
	}
}

// code runs a command and checks its exit code: code 7 banger exec ...
func cmdCode(ts *testscript.TestScript, neg bool, args []string) {
	refuse(ts, neg, len(args) < 2, "code N command...")
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	if exit, ok := err.(*exec.ExitError); ok {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// residue N checks that N things exist that an idle daemon would not have; N is mostly 0. What is
// being cleaned up at this moment gets a few seconds.
func cmdResidue(ts *testscript.TestScript, neg bool, args []string) {
	refuse(ts, neg, len(args) != 1 || args[0] != "0", "residue 0")
	w := theWorld(ts)
	var left []string
	if !poll(15*time.Second, func() bool { left = w.residue(); return len(left) == 0 }) {
		ts.Fatalf("left behind: %s", strings.Join(left, "\n"))
	}
}

// poll calls done every 20 ms. It is used where there is no event to wait for in another process.
func poll(limit time.Duration, done func() bool) bool {
	for end := time.Now().Add(limit); ; time.Sleep(20 * time.Millisecond) {
		if done() {
			return true
		}
		if time.Now().After(end) {
			return false
		}
	}
}

// killdaemon kills the daemon with SIGKILL and waits for its end.
func cmdKillDaemon(ts *testscript.TestScript, neg bool, args []string) {
	refuse(ts, neg, len(args) != 0, "killdaemon")
	killAll(ts, "daemon", "")
}

// killshim [ID] kills the shim of a VM, or all shims, with SIGKILL.
func cmdKillShim(ts *testscript.TestScript, neg bool, args []string) {
	refuse(ts, neg, len(args) > 1, "killshim [ID]")
	killAll(ts, "shim", strings.Join(args, ""))
}

// killvmm kills the Firecracker process of the only VM that has one.
func cmdKillVMM(ts *testscript.TestScript, neg bool, args []string) {
	refuse(ts, neg, len(args) != 0, "killvmm")
	ts.Check(syscall.Kill(theFirecracker(ts).pid, syscall.SIGKILL))
}

func theFirecracker(ts *testscript.TestScript) process {
	var found []process
	for _, p := range theWorld(ts).processes() {
		if slices.Contains(p.args, "--api-sock") {
			found = append(found, p)
		}
	}
	if len(found) != 1 {
		ts.Fatalf("there are %d Firecrackers", len(found))
	}
	return found[0]
}

// namespaces checks that the only Firecracker process has its own user and network namespaces, with
// lo and a tap, and no capabilities there.
func cmdNamespaces(ts *testscript.TestScript, neg bool, args []string) {
	refuse(ts, neg, len(args) > 1, "namespaces")
	proc := fmt.Sprintf("/proc/%d/", theFirecracker(ts).pid)
	for _, ns := range []string{"user", "net"} {
		theirs, err := os.Readlink(proc + "ns/" + ns)
		ts.Check(err)
		ours, err := os.Readlink("/proc/self/ns/" + ns)
		ts.Check(err)
		if theirs == ours {
			ts.Fatalf("its %s namespace is the host's", ns)
		}
	}
	status, err := os.ReadFile(proc + "status")
	ts.Check(err)
	for _, line := range []string{"CapEff:\t0000000000000000", "CapPrm:\t0000000000000000", "CapAmb:\t0000000000000000",
		"NoNewPrivs:\t1", "Seccomp:\t2"} {
		if !strings.Contains(string(status), "\n"+line+"\n") {
			ts.Fatalf("its status is without %q:\n%s", line, status)
		}
	}
	links, err := os.ReadFile(proc + "net/dev")
	ts.Check(err)
	if n := strings.Count(string(links), ":"); n != 2 || !strings.Contains(string(links), "tap0:") {
		ts.Fatalf("its network has\n%s", links)
	}
}

func killAll(ts *testscript.TestScript, role, word string) {
	w := theWorld(ts)
	killed := 0
	for _, p := range w.processes() {
		if len(p.args) > 1 && p.args[1] == role && strings.Contains(strings.Join(p.args, " "), word) {
			ts.Check(syscall.Kill(p.pid, syscall.SIGKILL))
			killed++
			if !poll(10*time.Second, func() bool { return !running(p.pid) }) {
				ts.Fatalf("process %d survived SIGKILL", p.pid)
			}
		}
	}
	if killed == 0 {
		ts.Fatalf("no %s runs", role)
	}
}

func running(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(rest, "Z")
}

// await TEXT command... repeats the command until its stdout contains TEXT.
func cmdAwait(ts *testscript.TestScript, neg bool, args []string) {
	refuse(ts, neg, len(args) < 2, "await TEXT command...")
	w := theWorld(ts)
	var out []byte
	ok := poll(90*time.Second, func() bool {
		cmd := exec.Command(args[1], args[2:]...)
		cmd.Env = append(os.Environ(), w.env()...)
		out, _ = cmd.Output()
		return strings.Contains(string(out), args[0])
	})
	if !ok {
		ts.Fatalf("%q never appeared; last: %s", args[0], out)
	}
}

// interrupt [-KILL|-TERM] STAGE[,STAGE] command... starts the command and sends it SIGINT, SIGKILL or
// SIGTERM each time that its stderr shows the next STAGE. It checks that the command ends with an
// error.
func cmdInterrupt(ts *testscript.TestScript, neg bool, args []string) {
	sig := os.Interrupt
	if named, ok := map[string]os.Signal{"-KILL": os.Kill,
		"-TERM": syscall.SIGTERM}[strings.Join(args[:min(1, len(args))], "")]; ok {
		args, sig = args[1:], named
	}
	refuse(ts, neg, len(args) < 2, "interrupt [-KILL|-TERM] STAGE[,STAGE] command...")
	atStage(ts, args[0], args[1:], func(p *os.Process) { ts.Check(p.Signal(sig)) })
}

// crash STAGE command... does the same, but kills the daemon.
func cmdCrash(ts *testscript.TestScript, neg bool, args []string) {
	refuse(ts, neg, len(args) < 2, "crash STAGE command...")
	atStage(ts, args[0], args[1:], func(*os.Process) { killAll(ts, "daemon", "") })
}

// atStage runs a command, and acts each time that its stderr shows the next of stages, which are
// separated by commas. It checks that the command ends with an error. The output is kept in the
// file "seen".
func atStage(ts *testscript.TestScript, stages string, args []string, act func(*os.Process)) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = append(os.Environ(), theWorld(ts).env()...)
	cmd.Dir = ts.MkAbs(".")
	stderr, err := cmd.StderrPipe()
	ts.Check(err)
	ts.Check(cmd.Start())
	var seen []byte
	buf := make([]byte, 4096)
	ahead := strings.Split(stages, ",")
	for {
		n, err := stderr.Read(buf)
		seen = append(seen, buf[:n]...)
		for len(ahead) > 0 && strings.Contains(string(seen), ahead[0]) {
			ahead = ahead[1:]
			act(cmd.Process)
		}
		if err != nil {
			break
		}
	}
	err = cmd.Wait()
	ts.Logf("%s\n%v", seen, err)
	ts.Check(os.WriteFile(ts.MkAbs("seen"), seen, 0o644))
	switch {
	case ctx.Err() != nil:
		ts.Fatalf("it did not end")
	case len(ahead) > 0:
		ts.Fatalf("stage %q was never shown", ahead[0])
	case err == nil:
		ts.Fatalf("it ended well in spite of all")
	}
}

// json PATH=VALUE... checks these values, by dotted path, in the JSON that the last command
// printed. NAME:=PATH puts a value into the environment.
func cmdJSON(ts *testscript.TestScript, neg bool, args []string) {
	refuse(ts, neg, len(args) == 0, "json path=value...")
	var doc any
	ts.Check(json.Unmarshal([]byte(ts.ReadFile("stdout")), &doc))
	for _, a := range args {
		path, want, _ := strings.Cut(a, "=")
		name, isName := strings.CutSuffix(path, ":")
		if isName {
			path = want
		}
		v := doc
		for key := range strings.SplitSeq(path, ".") {
			if i, err := strconv.Atoi(key); err == nil {
				list, ok := v.([]any)
				if !ok || i >= len(list) {
					ts.Fatalf("%s: no element %d", path, i)
				}
				v = list[i]
				continue
			}
			m, ok := v.(map[string]any)
			if !ok {
				ts.Fatalf("%s: no object at %q", path, key)
			}
			v = m[key]
		}
		if isName {
			ts.Setenv(name, fmt.Sprint(v))
		} else if got := fmt.Sprint(v); got != want {
			ts.Fatalf("%s is %q, want %q", path, got, want)
		}
	}
}
