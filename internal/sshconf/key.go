// Package sshconf makes what an OpenSSH client needs to reach VMs: keys, known hosts, the text of a configuration,
// and the one line in the user's own configuration that includes it. It must not know what a VM is. It does not trust
// the names that it gets.
package sshconf

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
	"golang.org/x/sys/unix"

	"banger/internal/blob"
)

// MakeKey returns the ed25519 key in file, and makes it if it does not exist. Only its owner can read the file.
// MakeKey returns the private key as in the file, and the line of the public key.
func MakeKey(file, comment string) (private []byte, public string, err error) {
	private, err = readKey(file, unix.O_NOFOLLOW) // another user may own its directory
	if errors.Is(err, fs.ErrNotExist) {
		private, err = newKey(file, comment)
	}
	if err != nil {
		return nil, "", err
	}
	signer, err := ssh.ParsePrivateKey(private)
	if err != nil {
		return nil, "", fmt.Errorf("the key in %s: %w", file, err)
	}
	return private, keyLine(signer.PublicKey()), nil
}

func keyLine(key ssh.PublicKey) string {
	return string(bytes.TrimSpace(ssh.MarshalAuthorizedKey(key)))
}

// newKey makes a key. If another process makes one at the same time, newKey returns that one.
func newKey(file, comment string) ([]byte, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	block, err := ssh.MarshalPrivateKey(key, comment)
	if err != nil {
		return nil, err
	}
	private := pem.EncodeToMemory(block)
	temp, err := writeTemp(file, private, 0o600)
	if err != nil {
		return nil, err
	}
	defer os.Remove(temp)
	if err := os.Link(temp, file); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return readKey(file, unix.O_NOFOLLOW)
		}
		return nil, err
	}
	return private, nil
}

// tempPrefix is the start of the name of a file that is being written. The id of the process follows.
const tempPrefix = ".banger-"

// removeHalves removes unfinished files in dir whose processes were killed.
func removeHalves(dir string) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		rest, ours := strings.CutPrefix(e.Name(), tempPrefix)
		pid, _, _ := strings.Cut(rest, "-")
		if _, err := strconv.ParseUint(pid, 10, 64); !ours || err != nil {
			continue
		}
		if _, err := os.Lstat(filepath.Join("/proc", pid)); errors.Is(err, fs.ErrNotExist) {
			os.Remove(filepath.Join(dir, e.Name()))
		}
	}
}

// writeTemp writes a new file in the directory of file and returns its name.
func writeTemp(file string, content []byte, mode fs.FileMode) (string, error) {
	f, err := os.CreateTemp(filepath.Dir(file), fmt.Sprintf("%s%d-*", tempPrefix, os.Getpid())) // O_EXCL, 0600
	if err != nil {
		return "", err
	}
	_, err = f.Write(content)
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err != nil {
		os.Remove(f.Name())
		return "", err
	}
	return f.Name(), nil
}

// WriteFile replaces the whole file, unless it already has this content.
func WriteFile(file string, content []byte) error {
	removeHalves(filepath.Dir(file))
	if have, err := os.ReadFile(file); err == nil && bytes.Equal(have, content) {
		return nil
	}
	temp, err := writeTemp(file, content, 0o600)
	if err != nil {
		return err
	}
	return moveTo(temp, file)
}

// moveTo gives a file its name, durably.
func moveTo(temp, file string) error {
	if err := os.Rename(temp, file); err != nil {
		os.Remove(temp)
		return err
	}
	return blob.Sync(filepath.Dir(file))
}

// maxKeyFile is the maximum number of bytes to read from a key file.
const maxKeyFile = 64 << 10

// PublicKeys returns a user's public keys as lines, without duplicates: those of the given files, which must be
// readable and are private keys or their .pub files; those of dir/*.pub; and those of the agent at socket.
func PublicKeys(files []string, dir, socket string) ([]string, error) {
	var lines []string
	add := func(key ssh.PublicKey) {
		if _, certificate := key.(*ssh.Certificate); !certificate && !slices.Contains(lines, keyLine(key)) {
			lines = append(lines, keyLine(key))
		}
	}
	for _, file := range files {
		key, err := publicOf(file)
		if err != nil {
			return nil, fmt.Errorf("there is no key in %s: %w", file, err)
		}
		add(key)
	}
	entries, _ := os.ReadDir(dir) // "" has no entries
	for _, e := range entries {
		if filepath.Ext(e.Name()) != ".pub" {
			continue
		}
		if key, err := readPublic(filepath.Join(dir, e.Name())); err == nil {
			add(key)
		}
	}
	for _, key := range agentKeys(socket) {
		add(key)
	}
	return lines, nil
}

// publicOf finds the public key of an identity file.
func publicOf(file string) (ssh.PublicKey, error) {
	if key, err := readPublic(file + ".pub"); err == nil {
		return key, nil
	}
	if key, err := readPublic(file); err == nil {
		return key, nil
	}
	data, err := readKey(file, 0)
	if err != nil {
		return nil, err
	}
	signer, err := ssh.ParsePrivateKey(data)
	if missing, ok := errors.AsType[*ssh.PassphraseMissingError](err); ok && missing.PublicKey != nil {
		return missing.PublicKey, nil
	}
	if err != nil {
		return nil, err
	}
	return signer.PublicKey(), nil
}

func readPublic(file string) (ssh.PublicKey, error) {
	data, err := readKey(file, 0)
	if err != nil {
		return nil, err
	}
	key, _, _, _, err := ssh.ParseAuthorizedKey(data)
	return key, err
}

// readKey reads a regular file of a key's size. Other kinds of files could block, and are rejected.
func readKey(file string, flags int) ([]byte, error) {
	f, err := os.OpenFile(file, os.O_RDONLY|unix.O_NONBLOCK|flags, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxKeyFile {
		return nil, fmt.Errorf("%s does not have the size of a key", file)
	}
	return io.ReadAll(io.LimitReader(f, maxKeyFile))
}

// agentLimit bounds the wait for the user's agent.
const agentLimit = 2 * time.Second

// agentKeys returns the keys of the agent, if there is one.
func agentKeys(socket string) []ssh.PublicKey {
	if socket == "" {
		return nil
	}
	conn, err := net.DialTimeout("unix", socket, agentLimit)
	if err != nil {
		return nil
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(agentLimit))
	list, err := agent.NewClient(conn).List()
	if err != nil {
		return nil
	}
	var keys []ssh.PublicKey
	for _, k := range list {
		if key, err := ssh.ParsePublicKey(k.Blob); err == nil {
			keys = append(keys, key)
		}
	}
	return keys
}
