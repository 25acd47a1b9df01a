package work

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"banger"
	"banger/internal/notation"
	"banger/internal/tooling"
)

// listing returns a line for each entry of a tar: type, mode, owner, name, link and content.
func listing(t *testing.T, raw []byte) string {
	t.Helper()
	var b strings.Builder
	for r := tar.NewReader(bytes.NewReader(raw)); ; {
		h, err := r.Next()
		if err == io.EOF {
			return b.String()
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "%c %04o %d:%d %s %s%s\n", h.Typeflag, h.Mode, h.Uid, h.Gid, h.Name, h.Linkname, text)
	}
}

// TestALayerHasItsNamesBelowADirectory checks the names in the tar of a copy that becomes a layer, and what hard links
// lead to. Symlinks lead to what they led to.
func TestALayerHasItsNamesBelowADirectory(t *testing.T) {
	var in, out bytes.Buffer
	w := tar.NewWriter(&in)
	for _, h := range []tar.Header{
		{Typeflag: tar.TypeDir, Name: "mise/", Mode: 0o755},
		{Typeflag: tar.TypeReg, Name: "mise/a", Mode: 0o644, Size: 1, Uid: 7, Gid: 8},
		{Typeflag: tar.TypeLink, Name: "mise/b", Linkname: "mise/a"},
		{Typeflag: tar.TypeSymlink, Name: "mise/c", Linkname: "../x"},
	} {
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			fmt.Fprint(w, "A")
		}
	}
	w.Close()
	if err := below(&in, &out, "/opt"); err != nil {
		t.Fatal(err)
	}
	want := "5 0755 0:0 opt/mise \n0 0644 7:8 opt/mise/a A\n1 0000 0:0 opt/mise/b opt/mise/a\n" +
		"2 0000 0:0 opt/mise/c ../x\n"
	if got := listing(t, out.Bytes()); got != want {
		t.Errorf("it has\n%swant\n%s", got, want)
	}
}

func TestATarThatBreaksOffIsNoLayer(t *testing.T) {
	var in, out bytes.Buffer
	w := tar.NewWriter(&in)
	w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "a", Size: 1000})
	if err := below(&in, &out, "/opt"); err == nil {
		t.Error("it is taken")
	}
}

// TestFilesOfTheUser checks what a VM gets of a file or a directory of the user's: modes, owner, names.
func TestFilesOfTheUser(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "file"), "text", 0o640)
	write(t, filepath.Join(dir, "dir", "program"), "run", 0o755)
	write(t, filepath.Join(dir, "dir", "sub", "file"), "sub", 0o600)
	if err := os.Chmod(filepath.Join(dir, "dir"), 0o750); err != nil {
		t.Fatal(err)
	}
	for name, to := range map[string]string{"dir/link": "program", "dir/broken": "/nonesuch", "dir/up": "..",
		"linked": "dir"} {
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	at := Home{Dir: "/home/u", UID: 1000, GID: 100}
	for _, test := range []struct{ name, to, mode, want string }{
		{"file", "etc/file", "", "0 0640 1000:100 etc/file text\n"},
		{"file", "etc/file", "0600", "0 0600 1000:100 etc/file text\n"},
		{"linked", "d", "0700", "5 0750 1000:100 d/ \n0 0700 1000:100 d/link run\n0 0700 1000:100 d/program run\n" +
			"5 0755 1000:100 d/sub/ \n0 0700 1000:100 d/sub/file sub\n"},
		{"dir/link", "bin/it", "", "0 0755 1000:100 bin/it run\n"},
		{"dir", "d", "", "5 0750 1000:100 d/ \n0 0755 1000:100 d/link run\n0 0755 1000:100 d/program run\n" +
			"5 0755 1000:100 d/sub/ \n0 0600 1000:100 d/sub/file sub\n"},
	} {
		var out bytes.Buffer
		w := tar.NewWriter(&out)
		if err := addSynced(w, filepath.Join(dir, test.name), test.to, test.mode, at); err != nil {
			t.Errorf("%s: %v", test.name, err)
			continue
		}
		w.Close()
		if got := listing(t, out.Bytes()); got != test.want {
			t.Errorf("%s as %q is\n%swant\n%s", test.name, test.mode, got, test.want)
		}
	}
}

func TestFilesThatAVMDoesNotGet(t *testing.T) {
	dir := t.TempDir()
	large := filepath.Join(dir, "large")
	write(t, large, "", 0o600)
	if err := os.Truncate(large, maxSynced+1); err != nil {
		t.Fatal(err)
	}
	if err := addSynced(tar.NewWriter(io.Discard), filepath.Join(dir, "nonesuch"), "x", "", Home{}); !errors.Is(err,
		fs.ErrNotExist) {
		t.Errorf("one that is not there: %v", err)
	}
	if err := addSynced(tar.NewWriter(io.Discard), large, "x", "", Home{}); err == nil ||
		!strings.Contains(err.Error(), "it is larger than 64 MiB") {
		t.Errorf("a large one: %v", err)
	}
}

// TestWhatAPolicyLetsPass checks whether a VM would reach the servers from which tools come.
func TestWhatAPolicyLetsPass(t *testing.T) {
	const want = "allow nodejs.org tcp:443"
	for _, test := range []struct {
		preset, rules string
		passes        bool
	}{
		{banger.Allow, "", true},
		{banger.Deny, "", false},
		{banger.Deny, "allow any", true},
		{banger.Deny, "allow nodejs.org", true},
		{banger.Deny, "allow nodejs.org tcp", true},
		{banger.Deny, "allow nodejs.org tcp:443", true},
		{banger.Deny, "allow nodejs.org tcp:80,400-500", true},
		{banger.Deny, "allow nodejs.org tcp:80", false},
		{banger.Deny, "allow nodejs.org udp:443", false},
		{banger.Deny, "allow *.org tcp:443", true},
		{banger.Deny, "allow *.nodejs.org tcp:443", false},
		{banger.Deny, "allow js.org", false},
		{banger.Deny, "allow private", false},
		{banger.Allow, "deny nodejs.org", false},
		{banger.Allow, "deny nodejs.org tcp:80", true},
		{banger.Allow, "deny any tcp:443", false},
		{banger.Deny, "deny nodejs.org tcp:443; allow any", false},
		{banger.Deny, "allow nodejs.org; deny any", true},
	} {
		p := banger.Policy{Default: test.preset}
		for text := range strings.SplitSeq(test.rules, ";") {
			if strings.TrimSpace(text) != "" {
				p.Rules = append(p.Rules, rule(t, text))
			}
		}
		if got := permits(p, rule(t, want)); got != test.passes {
			t.Errorf("%s with %q: %v, want %v", test.preset, test.rules, got, test.passes)
		}
	}
}

func rule(t *testing.T, text string) banger.Rule {
	t.Helper()
	r, err := notation.ParseRule(text)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestPortsThatCoverOthers(t *testing.T) {
	port := func(n ...uint16) (list []banger.PortRange) {
		for i := 0; i < len(n); i += 2 {
			list = append(list, banger.PortRange{First: n[i], Last: n[i+1]})
		}
		return list
	}
	for _, test := range []struct {
		ports, want []banger.PortRange
		covered     bool
	}{
		{nil, port(443, 443), true},
		{nil, nil, true},
		{port(443, 443), nil, false}, // one of all
		{port(80, 80, 400, 500), port(443, 443), true},
		{port(80, 80, 400, 500), port(443, 443, 80, 80), true},
		{port(80, 80), port(443, 443, 80, 80), false},
		{port(400, 450), port(443, 460), false},
	} {
		if got := covers(test.ports, test.want); got != test.covered {
			t.Errorf("%v covers %v: %v", test.ports, test.want, got)
		}
	}
}

// TestAVMWithoutAPolicyReachesTheInternet checks the presets of the daemon, before it has put them into a spec.
func TestAVMWithoutAPolicyReachesTheInternet(t *testing.T) {
	b := &bootstrap{plan: tooling.Plan{Tools: []tooling.Tool{{Name: "node", Version: "24.22.3"}}}}
	for want, s := range map[string]banger.Spec{
		"":                                     {},
		"policy keeps it from their servers":   {Untrusted: true},
		"the VM has no network":                {Network: banger.NetworkNone},
		"--net-allow 'nodejs.org tcp:443'; or": {Policy: &banger.Policy{Default: banger.Deny}},
	} {
		err := b.reachable(s)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", s.Policy, err, want)
		}
	}
}
