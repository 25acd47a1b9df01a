package renew

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/crypto/ssh"
)

// generators make the keys of an SSH server, by the kinds in the names of their files (ssh-keygen(1), -A).
var generators = map[string]func() (crypto.Signer, error){
	"ed25519": func() (crypto.Signer, error) { _, key, err := ed25519.GenerateKey(rand.Reader); return key, err },
	"ecdsa":   func() (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) },
	"rsa":     func() (crypto.Signer, error) { return rsa.GenerateKey(rand.Reader, 3072) },
}

// renewHostKeys makes the SSH host keys anew that differ from the image's. Keys of the image stay, as they do in a VM
// that boots.
func renewHostKeys(root, upper string) error {
	made, err := filepath.Glob(filepath.Join(upper, "etc/ssh/ssh_host_*_key"))
	for _, path := range made {
		if err == nil {
			err = renewHostKey(filepath.Join(root, "etc/ssh", filepath.Base(path)))
		}
	}
	if err != nil {
		return fmt.Errorf("renewing the SSH host keys: %w", err)
	}
	return nil
}

// renewHostKey replaces a key by another one of its kind. It removes one of a kind that is no longer made.
func renewHostKey(path string) error {
	kind := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(path), "ssh_host_"), "_key")
	generate, ok := generators[kind]
	if !ok {
		os.Remove(path + ".pub")
		return os.Remove(path)
	}
	key, err := generate()
	if err != nil {
		return err
	}
	block, err := ssh.MarshalPrivateKey(key, "")
	if err != nil {
		return err
	}
	public, err := ssh.NewPublicKey(key.Public())
	if err != nil {
		return err
	}
	if err := create(path, pem.EncodeToMemory(block), 0o600); err != nil {
		return err
	}
	return create(path+".pub", ssh.MarshalAuthorizedKey(public), 0o644)
}
