package cli

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"banger"
	"banger/internal/disk"
	"banger/internal/testing/hosttest"
)

func TestImages(t *testing.T) {
	t.Parallel()
	h := newCLIHost(t)
	digest := h.must("image", "ls", "-q")
	saved := filepath.Join(t.TempDir(), "tar")
	var images []banger.Image
	hosttest.Check(t, json.Unmarshal([]byte(h.must("image", "inspect", h.Image)), &images))
	if len(images) != 1 || images[0].Digest != digest {
		t.Errorf("inspect shows %+v", images)
	}
	const none = "banger: there is no image \"none\" (see: banger image ls)\n"
	h.check(
		line{args: "image pull -q IMAGE", stdout: digest + "\n"},
		line{args: "image pull x:y:z", code: 1, stderr: "banger: \"x:y:z\" is not an image reference …"},
		line{args: "image pull --format yaml IMAGE", code: 2,
			stderr: "banger: --format is \"yaml\", but only json is known\n"},
		line{args: "image tag IMAGE example.com/other:v1", stdout: "example.com/other:v1\n"},
		line{args: "image tag none other", code: 1, stderr: none},
		line{args: "image ls --format yaml", code: 2,
			stderr: "banger: --format is \"yaml\", but must be table, json or a template such as '{{.name}}'\n"},
		line{args: "image history none", code: 1, stderr: none},
		line{args: "image inspect none", stdout: "[]\n", code: 1, stderr: none},
		line{args: "image push none", code: 1, stderr: none},
		line{args: "image save none", code: 1, stderr: none},
		line{args: "image save -o " + saved + " example.com/other:v1"},
		line{args: "image save -o /no/such/dir/x example.com/other:v1", code: 1,
			stderr: "banger: cannot write /no/such/dir/x: no such file or directory\n"},
		line{args: "image prune", stderr: "removed 0 images and 0 blobs, 0 B\n"},
		line{args: "image prune -a", code: 1,
			stderr: "banger: this needs a yes, and stdin is not a terminal (use --force)\n"},
		line{args: "image prune -a --dry-run", stdout: digest + "\n",
			stderr: "would remove 1 images and 2 blobs, …"},
		line{args: "image rm example.com/other:v1", stdout: "example.com/other:v1\n"},
		line{args: "image rm none", code: 1, stderr: none},
		line{args: "image prune -aqf", stdout: digest + "\n"},
		line{args: "image load -q -i " + saved, stdout: "example.com/other:v1\n"},
		line{args: "image load -i /no/such", code: 1, stderr: "banger: cannot read the archive /no/such: no such file or directory\n"},
		line{args: "image load", stdin: "no tar", code: 1, stderr: "banger: cannot read the image archive …"},
		line{args: "image extend -q example.com/other:v1 more:v2", stdin: oneFile(t), stdout: "sha256:…"},
		line{args: "image extend example.com/other:v1 more:v3", stdin: "no tar", code: 1,
			stderr: "commit: reading the changes\n…"},
		line{args: "image extend none more:v3", stdin: oneFile(t), code: 1, stderr: none},
		line{args: "image extend example.com/other:v1 debian-bookworm", stdin: oneFile(t), code: 1,
			stderr: "banger: \"debian-bookworm\" cannot be the name of an image (use a name with a tag, such as mine:v1)\n"},
		line{args: "image rm more:v2", stdout: "more:v2\n"},
		line{args: "image ls -q", stdout: digest + "\n"},
		line{args: "image df -q", stdout: digest + "\n"},
	)
	for args, want := range map[string]string{
		"image ls":                           "REFERENCE DIGEST PLATFORM SIZE PULLED example.com/other:v1 ",
		"image df":                           "DIGEST FILE SYSTEM LAYERS SHARED REFERENCES ",
		"image history example.com/other:v1": "LAYER CREATED SIZE CREATED BY",
	} {
		if got := strings.Join(strings.Fields(h.must(words(args)...)), " "); !strings.HasPrefix(got, want) {
			t.Errorf("%s prints %q", args, got)
		}
	}
	archive, err := os.ReadFile(saved)
	hosttest.Check(t, err)
	h.with(string(archive), "image", "pull", "-q", "oci-archive:-").is(t, "example.com/other:v1\n", "", 0)
	h.with(string(archive), "image", "load", "-q").is(t, "example.com/other:v1\n", "", 0)
	if got := h.must("image", "save", "example.com/other:v1"); got != string(archive) {
		t.Errorf("on stdout there are %d bytes, and in the file %d", len(got), len(archive))
	}
}

// oneFile returns a plain tar with one file.
func oneFile(t *testing.T) string {
	var b strings.Builder
	w := tar.NewWriter(&b)
	hosttest.Check(t, w.WriteHeader(&tar.Header{Name: "etc/more", Mode: 0o644, Size: 4}))
	_, err := w.Write([]byte("more"))
	hosttest.Check(t, errors.Join(err, w.Close()))
	return b.String()
}

// TestAnImageInUseStays checks both ways to remove an image.
func TestAnImageInUseStays(t *testing.T) {
	t.Parallel()
	h := newCLIHost(t)
	h.must("create", "--name", "rest", h.Image)
	h.check(line{args: "tag IMAGE other:v1", stdout: "docker.io/library/other:v1\n"},
		line{args: "rmi other:v1", stdout: "other:v1\n"}, // one of several names
		line{args: "image rm IMAGE", code: 1, stderr: "banger: …"})
	got := h.banger("image", "prune", "-af")
	if got.code != 0 || got.stdout != "" || !strings.Contains(got.stderr, " stays: it is needed by VM rest\n") {
		t.Errorf("it is %+v", got)
	}
}

// TestEventsAsJSON checks --format json of operations with progress.
func TestEventsAsJSON(t *testing.T) {
	t.Parallel()
	h := newCLIHost(t)
	h.must("image", "prune", "-af")
	var last banger.Event
	events := strings.Split(h.must("image", "pull", "--format", "json", h.Image), "\n")
	for _, text := range events {
		last = banger.Event{}
		if err := json.Unmarshal([]byte(text), &last); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
	}
	if len(events) < 2 || last.Image == nil || last.Image.Digest == "" {
		t.Errorf("the %d events end with %+v", len(events), last)
	}
}

// TestRegisterAndPromote starts a VM from a file of the host, also when the file has gone after a promotion.
func TestRegisterAndPromote(t *testing.T) {
	t.Parallel()
	h := newCLIHost(t)
	rootfs := filepath.Join(t.TempDir(), "rootfs")
	hosttest.Check(t, disk.Create(rootfs, 64<<20))
	digest := h.must("image", "register", "mine", "--rootfs", rootfs, "--kernel", "test")
	h.must("create", "--name", "box", "--pull", "never", "mine", "true")
	h.check(
		line{args: "image register mine2 --rootfs /no/such", code: 1,
			stderr: "banger: \"/no/such\" cannot be a root file system: …"},
		line{args: "image register mine2", code: 2,
			stderr: "banger: give the file that holds the file system: --rootfs FILE\n"},
		line{args: "image promote none", code: 1, stderr: "banger: there is no image \"none\" …"},
		line{args: "image promote mine", stdout: digest + "\n"},
		line{args: "image promote mine", code: 1, stderr: "banger: …"},
	)
	hosttest.Check(t, os.Remove(rootfs))
	h.must("start", "-q", "box")
}

func TestKernels(t *testing.T) {
	t.Parallel()
	h := newCLIHost(t)
	var kernels []banger.Kernel
	hosttest.Check(t, json.Unmarshal([]byte(h.must("kernel", "inspect", "test")), &kernels))
	if len(kernels) != 1 || kernels[0].Version != "6.1.0-test" {
		t.Errorf("inspect shows %+v", kernels)
	}
	hosttest.Check(t, json.Unmarshal([]byte(h.must("kernel", "ls", "--format", "json")), &kernels))
	if len(kernels) != 1 {
		t.Errorf("ls shows %+v", kernels)
	}
	modules := h.Path("lib/modules/6.1.0-test")
	const none = "banger: no kernel is called \"none\" (see: banger kernel ls)\n"
	h.check(
		line{args: "kernel ls -q", stdout: "test\n"},
		line{args: "kernel ls",
			stdout: "NAME   VERSION      SIZE       DEFAULT   SOURCE   ADDED\ntest   6.1.0-test …"},
		line{args: "kernel inspect none", stdout: "[]\n", code: 1, stderr: none},
		line{args: "kernel rm none", code: 1, stderr: none},
		line{args: "kernel import", code: 2, stderr: "banger: give either --host, or --vmlinux and --modules\n"},
		line{args: "kernel import --host --vmlinux x", code: 2, stderr: "banger: give either --host, …"},
		line{args: "kernel import --vmlinux /no/such --modules /no/such", code: 1,
			stderr: "banger: cannot read the …"},
		line{args: "kernel import -q --vmlinux " + h.Path("agent") + " --modules " + modules,
			stdout: "6.1.0-test\n"},
		line{args: "kernel rm 6.1.0-test", stdout: "6.1.0-test\n"},
	)
}

// TestACheckThatFails checks that image ls --check shows what could not be checked in each of its forms.
func TestACheckThatFails(t *testing.T) {
	list := []banger.Image{{Reference: "one.test/a:v1", Digest: "sha256:1", Unchecked: "it is \x1b[31mnot there (advice)"},
		{Reference: "two.test/a:v1", Digest: "sha256:2", Moved: true}}
	const said = "banger: cannot check one.test/a:v1: it is \\x1b[31mnot there (advice)\n"
	for line, want := range map[string][]string{
		"image ls --check":               {", not checked\n", ", the tag has moved on\n"},
		"image ls --check -q":            {"sha256:1\n", "sha256:2\n"},
		"image ls --check --format json": {`"unchecked": "it is `},
	} {
		a, stdout, stderr := falseDaemon(t, func(w http.ResponseWriter, r *http.Request) { json.NewEncoder(w).Encode(list) })
		code := a.run(t.Context(), words(line))
		for _, part := range want {
			if !strings.Contains(stdout.String(), part) {
				t.Errorf("%s prints %q, without %q", line, stdout, part)
			}
		}
		answer{"", stderr.String(), code}.is(t, "", said, 1)
	}
}

// TestTemplates checks what a person sees of templates, and what a program.
func TestTemplates(t *testing.T) {
	t.Parallel()
	ago := func(d time.Duration) time.Time { return time.Now().Add(-d - time.Second) }
	list := []banger.Template{
		{ID: "7b8c5098a5b2", Image: "debian-bookworm", Kernel: "linux", VMM: "qemu 7.2", CPUs: 2, Memory: 512 << 20,
			Network: "user", Start: "first", Size: 105 << 20, CreatedAt: ago(3 * time.Hour), UsedAt: ago(2 * time.Minute)},
		{ID: "0123456789ab", Image: "a\x1b[31m", VMM: "qemu 7.2", CPUs: 1, Memory: 1 << 30, Network: "none",
			Start: "later", Size: 1 << 20, CreatedAt: ago(49 * time.Hour)},
	}
	const ids = "7b8c5098a5b2\n0123456789ab\n"
	for line, want := range map[string]struct{ stdout, stderr string }{
		"warm ls": {`ID             IMAGE             VMM        CPUS   MEMORY    NETWORK   START   SIZE      CREATED      USED
7b8c5098a5b2   debian-bookworm   qemu 7.2   2      512 MiB   user      first   105 MiB   3 h ago      2 min ago
0123456789ab   a\x1b[31m         qemu 7.2   1      1 GiB     none      later   1 MiB     2 days ago   never
`, ""},
		"warm list -q":             {ids, ""},
		"warm ls --format {{.id}}": {ids, ""},
		"warm ls --format json":    {"[\n  {\n    \"id\": \"7b8c5098a5b2\",\n    \"image\": \"debian-bookworm\",…", ""},
		"warm prune":               {ids, "removed 2 templates, 106 MiB\n"},
		"warm prune -qa":           {ids, ""},
		"warm rm 7b 0123456789ab":  {"7b\n0123456789ab\n", ""},
	} {
		t.Run(line, func(t *testing.T) {
			a, stdout, stderr := falseDaemon(t, func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodDelete {
					w.WriteHeader(http.StatusNoContent)
					return
				}
				json.NewEncoder(w).Encode(list)
			})
			code := a.run(t.Context(), words(line))
			answer{stdout.String(), stderr.String(), code}.is(t, want.stdout, want.stderr, 0)
		})
	}
}

// TestTemplatesThatAreNotThere asks a daemon that has none.
func TestTemplatesThatAreNotThere(t *testing.T) {
	t.Parallel()
	h := newCLIHost(t)
	h.check(
		line{args: "warm ls", stdout: "ID   IMAGE   VMM   CPUS   MEMORY   NETWORK   START   SIZE   CREATED   USED\n"},
		line{args: "warm ls -q"},
		line{args: "warm rm none", code: 1, stderr: "banger: there is no template \"none\" (see: banger warm ls)\n"},
		line{args: "warm rm", code: 2, stderr: "banger: these arguments do not fit; write: banger warm rm TEMPLATE... …"},
		line{args: "warm prune", stderr: "removed 0 templates, 0 B\n"},
		line{args: "warm thaw", code: 1, stderr: "banger: there is no command \"warm thaw\" …"},
	)
}
