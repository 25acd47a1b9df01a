package supervisor_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"banger"
)

// TestSSHIsThatOfARunningVM: a VM keeps one SSH host key for its whole life, and accepts the keys that each
// connection names.
func TestSSHIsThatOfARunningVM(t *testing.T) {
	h := newHost(t)
	s := h.daemon()
	vm := h.run(s, h.spec("box"))
	_, key, err := ed25519.GenerateKey(rand.Reader)
	check(t, err)
	signer, err := ssh.NewSignerFromKey(key)
	check(t, err)
	request := banger.SSH{Keys: []string{strings.TrimSpace(string(ssh.MarshalAuthorizedKey(signer.PublicKey())))}}
	output := func() string {
		t.Helper()
		hostKey, _, _, _, err := ssh.ParseAuthorizedKey([]byte(h.row(vm.ID).SSHHostKey))
		check(t, err)
		conn, err := s.Guests().SSH(h.ctx(), "box", request)
		check(t, err)
		defer conn.Close()
		c, channels, requests, err := ssh.NewClientConn(conn, "", &ssh.ClientConfig{User: fmt.Sprint(os.Getuid()),
			Auth: []ssh.AuthMethod{ssh.PublicKeys(signer)}, HostKeyCallback: ssh.FixedHostKey(hostKey)})
		check(t, err)
		client := ssh.NewClient(c, channels, requests)
		defer client.Close()
		session, err := client.NewSession()
		check(t, err)
		out, err := session.Output("echo inside")
		check(t, err)
		return string(out)
	}
	if out := output(); out != "inside\n" {
		t.Errorf("it says %q", out)
	}
	_, err = s.Guests().SSH(h.ctx(), "box", banger.SSH{})
	wantCode(t, err, banger.CodeInvalid)
	_, err = s.Stop(h.ctx(), "box", time.Second)
	check(t, err)
	_, err = s.Guests().SSH(h.ctx(), "box", request)
	wantCode(t, err, banger.CodeConflict)
	_, err = s.Guests().SSH(h.ctx(), "nosuch", request)
	wantCode(t, err, banger.CodeNotFound)
	if _, err = s.Start(h.ctx(), "box", false, false, banger.Discard); err != nil {
		t.Fatal(err)
	}
	if after := h.row(vm.ID).SSHHostKey; after != vm.SSHHostKey || after == "" {
		t.Errorf("its key was %q and is %q", vm.SSHHostKey, after)
	}
	if out := output(); out != "inside\n" {
		t.Errorf("after a restart it says %q", out)
	}
	check(t, s.Remove(h.ctx(), "box", true))
	h.wantNothing(s)
}
