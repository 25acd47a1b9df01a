package renew

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/crypto/ssh"
)

// tree is an image's root, and what of it differs from the image.
type tree struct {
	*testing.T
	root, upper string
}

func newTree(t *testing.T) tree { return tree{t, t.TempDir(), t.TempDir()} }

// write writes a file that the boot has made.
func (t tree) write(name, content string) {
	t.Helper()
	t.image(name, content)
	t.put(filepath.Join(t.upper, name), content)
}

// image writes a file of the image.
func (t tree) image(name, content string) { t.Helper(); t.put(filepath.Join(t.root, name), content) }

func (t tree) put(path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o666); err != nil {
		t.Fatal(err)
	}
}

// read returns a file's content, or "" if it is not there.
func (t tree) read(name string) string {
	data, _ := os.ReadFile(filepath.Join(t.root, name))
	return string(data)
}

func (t tree) renew() {
	t.Helper()
	if err := Files(t.root, t.upper); err != nil {
		t.Fatal(err)
	}
}

func TestTheJournalOfTheTemplateGoes(t *testing.T) {
	tree := newTree(t)
	const ofImage = "00000000000000000000000000000001"
	tree.image("etc/machine-id", ofImage)
	tree.image("var/log/journal/"+ofImage+"/a", "lines")
	tree.renew()
	if tree.read("var/log/journal/"+ofImage+"/a") == "" {
		t.Error("the image's journal has gone")
	}
	const old = "0123456789abcdef0123456789abcdef"
	tree.write("etc/machine-id", old+"\n")
	for _, name := range []string{"run/log/journal/" + old + "/a", "var/log/journal/" + old + "/b",
		"var/log/journal/other/c"} {
		tree.write(name, "lines")
	}
	tree.renew()
	if a, b := tree.read("run/log/journal/"+old+"/a"), tree.read("var/log/journal/"+old+"/b"); a != "" || b != "" {
		t.Errorf("the journals have %q and %q", a, b)
	}
	if tree.read("var/log/journal/other/c") != "lines" {
		t.Error("the journal of another machine has gone")
	}
}

// TestAMachineIDIsNoPath: nothing but a journal is removed, whatever an image has as its machine id.
func TestAMachineIDIsNoPath(t *testing.T) {
	for _, id := range []string{"", "..", "../../kept", "a/b", "."} {
		tree := newTree(t)
		tree.write("etc/machine-id", id+"\n")
		tree.write("var/log/journal/kept", "lines")
		tree.write("var/kept/file", "lines")
		tree.renew()
		if tree.read("var/log/journal/kept") == "" || tree.read("var/kept/file") == "" {
			t.Errorf("with the machine id %q, files have gone", id)
		}
	}
}

func TestSecretsAreNew(t *testing.T) {
	tree := newTree(t)
	tree.renew()
	if tree.read("var/lib/systemd/random-seed") != "" {
		t.Error("a random seed is made where there was none")
	}
	tree.write("var/lib/systemd/random-seed", "old")
	tree.write("var/lib/systemd/credential.secret", "old")
	tree.renew()
	seed := tree.read("var/lib/systemd/random-seed")
	info, err := os.Stat(filepath.Join(tree.root, "var/lib/systemd/random-seed"))
	if err != nil || info.Mode() != 0o600 || len(seed) != seedSize || bytes.Equal([]byte(seed), make([]byte, seedSize)) {
		t.Errorf("the random seed has %d bytes, %v, %v", len(seed), info, err)
	}
	if tree.read("var/lib/systemd/credential.secret") != "" {
		t.Error("the key for credentials is the template's")
	}
	tree.renew()
	if tree.read("var/lib/systemd/random-seed") == seed {
		t.Error("two VMs have the same random seed")
	}
}

// TestHostKeysAreNew: those that the boot has made are replaced, and those of the image stay.
func TestHostKeysAreNew(t *testing.T) {
	tree := newTree(t)
	for _, kind := range []string{"ed25519", "ecdsa", "rsa", "dsa"} {
		tree.write("etc/ssh/ssh_host_"+kind+"_key", "old")
		tree.write("etc/ssh/ssh_host_"+kind+"_key.pub", "old")
	}
	tree.image("etc/ssh/ssh_host_image_key", "the image's")
	tree.image("etc/ssh/sshd_config", "the image's")
	tree.renew()
	for _, kind := range []string{"ed25519", "ecdsa", "rsa"} {
		name := "etc/ssh/ssh_host_" + kind + "_key"
		key, err := ssh.ParsePrivateKey([]byte(tree.read(name)))
		if err != nil {
			t.Fatalf("%s: %v", kind, err)
		}
		if tree.read(name+".pub") != string(ssh.MarshalAuthorizedKey(key.PublicKey())) {
			t.Errorf("%s: the public key is not that of the private one", kind)
		}
		if info, err := os.Stat(filepath.Join(tree.root, name)); err != nil || info.Mode() != 0o600 {
			t.Errorf("%s: the private key's file is %v, %v", kind, info, err)
		}
	}
	if tree.read("etc/ssh/ssh_host_dsa_key")+tree.read("etc/ssh/ssh_host_dsa_key.pub") != "" {
		t.Error("a key of a kind that is no longer made has stayed")
	}
	if tree.read("etc/ssh/ssh_host_image_key") != "the image's" || tree.read("etc/ssh/sshd_config") != "the image's" {
		t.Error("files of the image are changed")
	}
}

func TestServicesAreThoseOfPID1(t *testing.T) {
	for stat, want := range map[string]bool{
		"7 (sshd) S 1 7 7 0":      true,
		"7 (sshd) S 12 7 7 0":     false, // of a session
		"7 (sshd: x) S 1 7 7 0":   false,
		"7 (a) (sshd) S 1 7 7 0":  false,
		"7 (sshd) S 1) S 2 7 7 0": false, // a name that looks like more
		"7 (sshd":                 false,
		"":                        false,
	} {
		if name, ok := serviceIn([]byte(stat)); (ok && name == "sshd") != want {
			t.Errorf("%q is one, of %q: %v", stat, name, ok)
		}
	}
}
