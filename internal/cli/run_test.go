package cli

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"banger"
	"banger/internal/testing/hosttest"
	"banger/internal/testing/vmmtest"
)

// line is a command line and what it must print. IMAGE in args stands for the host's image.
type line struct {
	args           string // separated by spaces; a quoted word is not split
	stdin          string
	stdout, stderr string
	code           int
}

// check runs the lines one after another on the host.
func (h *cliHost) check(lines ...line) {
	h.T.Helper()
	for _, l := range lines {
		h.T.Run(l.args, func(t *testing.T) {
			words := words(strings.ReplaceAll(l.args, "IMAGE", h.Image))
			h.on(t).with(l.stdin, words...).is(t, l.stdout, l.stderr, l.code)
		})
	}
}

// on returns h for the subtest t.
func (h *cliHost) on(t *testing.T) *cliHost {
	host := *h.Host
	host.T = t
	return &cliHost{&host}
}

// words splits a command line as a shell does with words and single quotes.
func words(line string) (list []string) {
	for i, part := range strings.Split(line, "'") {
		if i%2 == 1 {
			list = append(list, part)
		} else {
			list = append(list, strings.Fields(part)...)
		}
	}
	return list
}

const noVM = "banger: there is no VM called \"no\" (see: banger ps -a)\n"

func TestRun(t *testing.T) {
	h := newCLIHost(t)
	t.Setenv("OURS", "shell")
	env := h.write("env", "# a comment\n\n  A=file\nB=file\n")
	h.check(
		line{args: "run -q --rm IMAGE -- sh -c 'echo out; echo err >&2; exit 3'", stdout: "out\n",
			stderr: "err\n", code: 3},
		line{args: "run --rm --name web IMAGE true",
			stderr: "boot: booting web (emulated: slow, and no isolation " +
				"boundary)\nboot: web is running\n"},
		line{args: "run -q --rm -i IMAGE cat", stdin: "input\x00", stdout: "input\x00"},
		line{args: "run -q --rm IMAGE cat", stdin: "not for the command"},
		line{args: "run -q --rm -e OURS -e NONE -e B=flag --env-file " + env +
			" IMAGE -- sh -c 'echo $OURS,$NONE,$A,$B'",
			stdout: "shell,,file,flag\n"},
		line{args: "run -q --rm -w /proc --entrypoint /bin/pwd IMAGE", stdout: "/proc\n"},
		line{args: "run -q --rm IMAGE sh -c 'kill -TERM $$'", code: 143},
		line{args: "run -q --rm IMAGE /no/such", code: exitCommandAbsent,
			stderr: "banger: there is no command \"/no/such\", or its interpreter is missing\n"},
		line{args: "run -q --rm IMAGE /etc/passwd", code: exitCannotRun,
			stderr: "banger: the command \"/etc/passwd\" cannot be run: permission denied\n"},
		line{args: "run", code: exitBanger,
			stderr: "banger: no image given (for example: banger run debian-bookworm)\n"},
		line{args: "run --no-such IMAGE", code: exitBanger,
			stderr: "banger: unknown flag: --no-such (see: banger run --help)\n"},
		line{args: "run -q oci:/no/such true", code: exitBanger,
			stderr: "banger: cannot read the OCI layout /no/such: …"},
		line{args: "run -m x IMAGE", code: exitBanger,
			stderr: "banger: --memory: \"x\" is not a size (write 512m, 1.5g or a number of bytes)\n"},
		line{args: "run --warm sometimes IMAGE", code: exitBanger,
			stderr: "banger: warm is \"sometimes\", but must be auto, never, only or booted\n"},
		line{args: "run -q --rm --warm only --name frozen IMAGE", code: exitBanger,
			stderr: "banger: there is no template for VM frozen: its VMM has no templates (leave out --warm=only …"},
		line{args: "run -it IMAGE sh", code: exitBanger,
			stderr: "banger: stdin is not a terminal (leave out -t)\n"},
		line{args: "run --env-file /no/such IMAGE", code: exitBanger,
			stderr: "banger: cannot read the env file /no/such: no such file or directory\n"},
		line{args: "run -v /srv:/srv IMAGE", code: exitBanger, stderr: "banger: there is no flag -v: folders of the host " +
			"and volumes come later; until then: banger cp (see: banger run --help)\n"},
		line{args: "run --security-opt seccomp=profile.json IMAGE", code: exitBanger,
			stderr: "banger: --security-opt \"seccomp=profile.json\" cannot be done in a VM (no-new-privileges can; …"},
		line{args: "run --ulimit nofile=2:1 IMAGE", code: exitBanger, stderr: "banger: \"nofile=2:1\" is not a limit: …"},
		line{args: "run -q --rm --privileged --cap-add SYS_ADMIN IMAGE true", stderr: "banger: --privileged changes " +
			"nothing: commands in a VM have all rights in a kernel of their own already\n" +
			"banger: --cap-add changes nothing: commands in a VM have all rights in a kernel of their own already\n"},
		line{args: "run -q --rm --ulimit nofile=100:200 --ulimit core=0 IMAGE sh -c 'ulimit -Sn; ulimit -Hn; ulimit -c'",
			stdout: "100\n200\n0\n"},
		line{args: "run -q --rm --ulimit nofile=100 IMAGE /no/such", code: exitCommandAbsent,
			stderr: "banger: there is no command \"/no/such\", or its interpreter is missing\n"},
		line{args: "run -q --rm --security-opt no-new-privileges IMAGE grep NoNewPrivs /proc/self/status",
			stdout: "NoNewPrivs:\t1\n"},
		line{args: "run -q --rm --init --stop-timeout 1 IMAGE echo started", stdout: "started\n"},
	)
}

// TestAFailedBootIsTold also checks that the VM stays for a look, unless --rm was given.
func TestAFailedBootIsTold(t *testing.T) {
	t.Parallel()
	for flags, left := range map[string]string{"-d": "kept\n", "-d --rm": ""} {
		h := newCLIHost(t)
		h.Fault(vmmtest.PanicAtBoot, vmmtest.PanicAtBoot) // a boot is tried twice
		got := h.banger(words("run -q --name kept " + flags + " " + h.Image + " true")...)
		if got.code != exitBanger || !strings.Contains(got.stderr, "panicked; its console ends with") {
			t.Errorf("with %s it is %+v", flags, got)
		}
		h.banger("prune", "-f").is(t, left, "", 0)
	}
}

func TestCreate(t *testing.T) {
	t.Parallel()
	h := newCLIHost(t)
	id := h.must("create", "--name", "box", "-l", "tier=web", "-e", "SECRET=x", h.Image, "true")
	h.banger("ps", "-aq", "-f", "label=tier=web").is(t, id+"\n", "", 0)
	h.check(
		line{args: "create --name box IMAGE", code: 1, stderr: "banger: a VM called \"box\" exists already …"},
		line{args: "create --cpus 0 IMAGE", code: 1, stderr: "banger: cpus is 0, but must be between 0.01 and …"},
		line{args: "create --cpus 1,5 IMAGE", code: 1, stderr: "banger: cpus is 1,5, but must be between 0.01 and …"},
		line{args: "create", code: exitBanger,
			stderr: "banger: no image given (for example: banger create debian-bookworm)\n"},
	)
	for flag, want := range map[string]string{"": banger.HiddenValue, "--show-env": "x"} {
		var vms []banger.VM
		args := append([]string{"inspect", "box"}, strings.Fields(flag)...)
		hosttest.Check(t, json.Unmarshal([]byte(h.must(args...)), &vms))
		if len(vms) != 1 || vms[0].ID != id || strings.Join(vms[0].Spec.Env, " ") != "SECRET="+want {
			t.Errorf("inspect %s shows %+v", flag, vms)
		}
	}
}

// TestInterruptedWhileItBoots checks that no VM stays when the user interrupts run.
func TestInterruptedWhileItBoots(t *testing.T) {
	t.Parallel()
	h := newCLIHost(t)
	h.Fault(vmmtest.NeverAnswer)
	ctx, interrupt := context.WithCancel(t.Context())
	a, _, stderr := h.app()
	a.Stderr = writerFunc(func(p []byte) (int, error) {
		if strings.HasPrefix(string(p), "boot: booting") {
			interrupt()
		}
		return stderr.Write(p)
	})
	code := a.run(ctx, []string{"run", "-d", h.Image, "true"})
	if code != exitBanger || !strings.HasSuffix(stderr.String(), "banger: canceled\n") {
		t.Errorf("it ends with %d and says %q", code, stderr)
	}
	h.banger("ps", "-aq").is(t, "", "", 0)
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func TestExec(t *testing.T) {
	t.Parallel()
	h := newCLIHost(t)
	h.box("box", "-e", "FROM=spec")
	h.must("create", "--name", "rest", h.Image)
	h.check(
		line{args: "exec box -- sh -c 'echo out; echo err >&2; exit 4'", stdout: "out\n", stderr: "err\n", code: 4},
		line{args: "exec -i box cat", stdin: "input", stdout: "input"},
		line{args: "exec -e A=1 -w /proc box sh -c 'echo $A $FROM $PWD'", stdout: "1 spec /proc\n"},
		line{args: "exec box no-such", code: exitCommandAbsent,
			stderr: "banger: there is no command \"no-such\" in the image's PATH\n"},
		line{args: "exec box /etc/passwd", code: exitCannotRun,
			stderr: "banger: the command \"/etc/passwd\" cannot be run: …"},
		line{args: "exec no true", code: exitBanger, stderr: noVM},
		line{args: "exec box", code: exitBanger,
			stderr: "banger: exec needs a VM and a command (see: banger exec --help)\n"},
		line{args: "exec -it box sh", code: exitBanger, stderr: "banger: stdin is not a terminal (leave out -t)\n"},
		line{args: "exec --env-file /no/such box sh", code: exitBanger,
			stderr: "banger: cannot read the env file /no/such: …"},
		line{args: "exec --no-such", code: exitBanger,
			stderr: "banger: unknown flag: --no-such (see: banger exec --help)\n"},
		line{args: "exec rest true", code: exitBanger,
			stderr: "banger: cannot run a command in VM rest: it is created (start it: banger start rest)\n"},
	)
}

// TestTheFileForTheID is made before the VM, so that a file that cannot be written leaves no VM behind.
func TestTheFileForTheID(t *testing.T) {
	t.Parallel()
	h := newCLIHost(t)
	file := filepath.Join(t.TempDir(), "id")
	id := strings.TrimSpace(h.must("create", "--cidfile", file, h.Image, "true"))
	if got, err := os.ReadFile(file); string(got) != id || err != nil {
		t.Errorf("the file has %q, %v, and the VM is %s", got, err, id)
	}
	h.banger("create", "--cidfile", file, h.Image, "true").is(t, "", "banger: cannot make the file "+file+
		" for the id: file exists (--cidfile names a file that does not exist)\n", 1)
	h.banger("ps", "-aq").is(t, id+"\n", "", 0)
	other := file + "2"
	h.banger("create", "--cidfile", other, "--pull", "never", "no-such-image").is(t, "", "banger: …", 1)
	if _, err := os.Lstat(other); !os.IsNotExist(err) {
		t.Errorf("the file of a VM that was not made is there: %v", err)
	}
}
