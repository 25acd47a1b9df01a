package sshconf

import (
	"bytes"
	"fmt"
	"strings"

	"golang.org/x/crypto/ssh"
)

// Host is one VM as an SSH client needs it.
type Host struct {
	Name, ID string
	Key      string // the line of its public host key
}

// Suffix is the suffix of a VM's name in its SSH host name.
const Suffix = ".vm"

// Config is the part that all hosts share.
type Config struct {
	Proxy      []string // the command that connects to a VM; the VM's id is appended
	KnownHosts string   // path of the file that KnownHosts describes
	Identity   string   // path of the key that MakeKey makes
}

// check rejects everything that could be more than one word of a line.
func (h Host) check() error {
	for _, c := range []struct{ what, text string }{{"name", h.Name}, {"id", h.ID}} {
		if !isLabel(c.text) {
			return fmt.Errorf("%q is not the %s of a host", c.text, c.what)
		}
	}
	key, _, options, rest, err := ssh.ParseAuthorizedKey([]byte(h.Key))
	if err != nil || len(options) > 0 || len(rest) > 0 || !strings.HasPrefix(h.Key, keyLine(key)) ||
		strings.ContainsAny(h.Key, "\r\n\x00") {
		return fmt.Errorf("the host key of %s is not one", h.Name)
	}
	return nil
}

// isLabel reports whether s is a DNS label in lower case.
func isLabel(s string) bool {
	if s == "" || len(s) > 63 || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}

// KnownHosts returns a known_hosts file with one line for each host.
func KnownHosts(hosts []Host) ([]byte, error) {
	var b bytes.Buffer
	for _, h := range hosts {
		if err := h.check(); err != nil {
			return nil, err
		}
		key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(h.Key))
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(&b, "%s%s,%s %s\n", h.Name, Suffix, h.ID, keyLine(key))
	}
	return b.Bytes(), nil
}

// Options returns the options of one host, each in the form for ssh -o. With only, ssh offers only the key Identity
// and the keys that the caller names.
func (c Config) Options(h Host, only bool) ([]string, error) {
	if err := h.check(); err != nil {
		return nil, err
	}
	proxy, err := proxyCommand(append(c.Proxy[:len(c.Proxy):len(c.Proxy)], h.ID))
	if err != nil {
		return nil, err
	}
	known, err := quotePath(c.KnownHosts)
	if err != nil {
		return nil, err
	}
	identity, err := quotePath(c.Identity)
	if err != nil {
		return nil, err
	}
	return []string{
		"HostName " + h.Name + Suffix, "HostKeyAlias " + h.ID, "User root", "ProxyCommand " + proxy,
		"UserKnownHostsFile " + known, "GlobalKnownHostsFile none", "StrictHostKeyChecking yes", "UpdateHostKeys no",
		"CheckHostIP no",
		"IdentityFile " + identity, "IdentitiesOnly " + map[bool]string{true: "yes", false: "no"}[only],
	}, nil
}

// Text returns the configuration, with one block for each host.
func (c Config) Text(hosts []Host) ([]byte, error) {
	b := bytes.NewBufferString("# Written by banger, and again whenever a VM comes or goes.\n")
	for _, h := range hosts {
		options, err := c.Options(h, false)
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(b, "\nHost %s%s\n", h.Name, Suffix)
		for _, o := range options {
			fmt.Fprintf(b, "    %s\n", o)
		}
	}
	return b.Bytes(), nil
}

// proxyCommand returns a command for ssh_config: the rest of the line, in which ssh expands percent signs, and which
// the user's shell then reads.
func proxyCommand(argv []string) (string, error) {
	words := make([]string, len(argv))
	for i, w := range argv {
		if err := checkText(w); err != nil {
			return "", err
		}
		words[i] = "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
	}
	return strings.ReplaceAll(strings.Join(words, " "), "%", "%%"), nil
}

// quotePath returns a path as one word in which ssh expands nothing. It returns an error for a path that
// ssh_config(5) cannot express even with quotes.
func quotePath(path string) (string, error) {
	if err := checkText(path); err != nil {
		return "", err
	}
	if strings.ContainsAny(path, `"\`) || strings.Contains(path, "${") {
		return "", fmt.Errorf("the path %q cannot be written in a configuration of ssh", path)
	}
	return `"` + strings.ReplaceAll(path, "%", "%%") + `"`, nil
}

// checkText rejects characters that would end a line.
func checkText(s string) error {
	for _, c := range []byte(s) {
		if c < ' ' || c == 0x7f {
			return fmt.Errorf("%q holds a control character", s)
		}
	}
	return nil
}
