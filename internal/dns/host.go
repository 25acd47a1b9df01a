package dns

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"banger"
	"banger/internal/blob"
)

// Kinds of resolvers that a host may use.
const (
	Resolved       = "systemd-resolved"
	NetworkManager = "NetworkManager with dnsmasq"
	Dnsmasq        = "dnsmasq"
	Plain          = "resolv.conf alone"
	Bypassed       = "resolv.conf, which passes systemd-resolved by"
	Unknown        = "unknown"
)

// Host describes how a host resolves names, according to its files. Root is "/" except in tests.
type Host struct {
	Root        string
	Kind        string
	Nameservers []string // of resolv.conf
}

// Detect finds out which resolver the host uses. It changes nothing.
func Detect(root string) Host {
	h := Host{Root: root, Kind: Unknown}
	conf := filepath.Join(root, "etc/resolv.conf")
	data, err := os.ReadFile(conf)
	if err != nil {
		return h
	}
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) >= 2 && f[0] == "nameserver" {
			h.Nameservers = append(h.Nameservers, f[1])
		}
	}
	local := func(addrs ...string) bool {
		for _, n := range h.Nameservers {
			for _, a := range addrs {
				if n == a || a == "loopback" && isLoopback(n) {
					return true
				}
			}
		}
		return false
	}
	resolved := h.exists(resolvedRun)
	switch {
	case local("127.0.0.53", "127.0.0.54") || resolved && h.asksResolved():
		h.Kind = Resolved
	case h.mentions("dns=dnsmasq", "etc/NetworkManager/NetworkManager.conf", "etc/NetworkManager/conf.d/*.conf",
		"usr/lib/NetworkManager/conf.d/*.conf"):
		h.Kind = NetworkManager
	case local("loopback") && h.exists("etc/dnsmasq.conf", "etc/dnsmasq.d"):
		h.Kind = Dnsmasq
	case len(h.Nameservers) > 0 && resolved:
		h.Kind = Bypassed
	case len(h.Nameservers) > 0:
		h.Kind = Plain
	}
	return h
}

func isLoopback(text string) bool {
	a, err := netip.ParseAddr(text)
	return err == nil && a.IsLoopback()
}

func (h Host) exists(paths ...string) bool {
	for _, p := range paths {
		if _, err := os.Stat(filepath.Join(h.Root, p)); err == nil {
			return true
		}
	}
	return false
}

// mentions reports whether one of the files has a line with the setting, apart from spaces.
func (h Host) mentions(setting string, patterns ...string) bool {
	for _, p := range patterns {
		names, _ := filepath.Glob(filepath.Join(h.Root, p))
		for _, name := range names {
			data, _ := os.ReadFile(name)
			for line := range strings.Lines(string(data)) {
				if strings.Join(strings.Fields(line), "") == setting {
					return true
				}
			}
		}
	}
	return false
}

// Recipe returns what a person can do if Install cannot, or "" if Install can.
func (h Host) Recipe(server netip.AddrPort) string {
	line := fmt.Sprintf("server=/%s/%s#%d", Domain, server.Addr(), server.Port())
	switch h.Kind {
	case Resolved:
		return ""
	case NetworkManager:
		return fmt.Sprintf("echo '%s' | sudo tee /etc/NetworkManager/dnsmasq.d/banger.conf && sudo nmcli general reload",
			line)
	case Dnsmasq:
		return fmt.Sprintf("echo '%s' | sudo tee /etc/dnsmasq.d/banger.conf && sudo systemctl restart dnsmasq", line)
	}
	return ""
}

// dropIn is our file for systemd-resolved (resolved.conf(5); a port needs systemd 246).
const dropIn = "etc/systemd/resolved.conf.d/banger.conf"

// DropInPath is the path of the file that Install makes, from the host's root.
const DropInPath = "/" + dropIn

func dropInText(server netip.AddrPort, madeDir bool) string {
	note := ""
	if madeDir {
		note = madeDirNote
	}
	return fmt.Sprintf(
		"# Made by \"banger dns install\" and removed by \"banger dns uninstall\"%s.\n[Resolve]\nDNS=%s\nDomains=~%s\n", note,
		server, Domain)
}

const madeDirNote = ", with this directory"

var dropInPattern = regexp.MustCompile(`^` +
	strings.ReplaceAll(regexp.QuoteMeta(dropInText(netip.AddrPort{}, false)), regexp.QuoteMeta(netip.AddrPort{}.String()),
		`[0-9.]+:[0-9]+`) + `$`)

// Install configures systemd-resolved to ask server for the domain of VMs. It reports whether it changed anything;
// the caller then makes the resolver reload its configuration. If the host uses another resolver, Install returns
// an error that says what can be done.
func (h Host) Install(server netip.AddrPort) (changed bool, err error) {
	if h.Kind != Resolved {
		return false, h.unsupported(server)
	}
	path := filepath.Join(h.Root, dropIn)
	have, err := h.installed()
	if err != nil {
		return false, err
	}
	if have == nil {
		if err := h.checkServers(); err != nil {
			return false, err
		}
	}
	_, statErr := os.Stat(filepath.Dir(path))
	madeDir := errors.Is(statErr, fs.ErrNotExist) || bytes.Contains(have, []byte(madeDirNote))
	text := []byte(dropInText(server, madeDir))
	if bytes.Equal(have, text) {
		return false, nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return false, h.denied(err, "install --server "+server.String())
	}
	write := func(w io.Writer) error { _, err := w.Write(text); return err }
	if err := blob.WriteFile(path, 0o644, write); err != nil {
		if madeDir && have == nil {
			os.Remove(filepath.Dir(path))
		}
		return false, h.denied(err, "install --server "+server.String())
	}
	return true, nil
}

// Uninstall removes what Install made and reports whether there was anything. If somebody has edited the file,
// Uninstall leaves it and returns an error.
func (h Host) Uninstall() (changed bool, err error) {
	have, err := h.installed()
	if err != nil || have == nil {
		return false, err
	}
	path := filepath.Join(h.Root, dropIn)
	if err := os.Remove(path); err != nil {
		return false, h.denied(err, "uninstall")
	}
	dir := filepath.Dir(path)
	// The directory stays if somebody else has put a file there.
	if bytes.Contains(have, []byte(madeDirNote)) && os.Remove(dir) == nil {
		dir = filepath.Dir(dir)
	}
	if err := blob.Sync(dir); err != nil { // otherwise it could come back after a power cut
		return true, h.denied(err, "uninstall")
	}
	return true, nil
}

// Installed returns the server in our file. It reports false if there is no such file.
func (h Host) Installed() (netip.AddrPort, bool) {
	for _, v := range settings(filepath.Join(h.Root, dropIn), "Resolve", "DNS") {
		if at, err := netip.ParseAddrPort(v); err == nil {
			return at, true
		}
	}
	return netip.AddrPort{}, false
}

// installed returns our file, or nil if it does not exist. It returns an error if the file is not as we made it.
func (h Host) installed() ([]byte, error) {
	have, err := os.ReadFile(filepath.Join(h.Root, dropIn))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, h.denied(err, "uninstall")
	}
	if !dropInPattern.Match(bytes.Replace(have, []byte(madeDirNote), nil, 1)) {
		return nil, banger.Errorf(banger.CodeConflict, "%s is not as banger made it", DropInPath).
			WithHint("look at it, and remove it yourself")
	}
	return have, nil
}

func (h Host) denied(err error, command string) error {
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, os.ErrPermission) {
		return banger.Errorf(banger.CodeDenied, "%s can only be changed by root", DropInPath).
			WithHint("sudo banger dns %s", command)
	}
	return banger.Errorf(banger.CodeUnavailable, "cannot change %s: %w", DropInPath, err).
		WithHint("is the file system read-only?")
}

func (h Host) unsupported(server netip.AddrPort) error {
	if recipe := h.Recipe(server); recipe != "" {
		return banger.Errorf(banger.CodeNotBuilt, "this host resolves names by %s, which banger does not configure", h.Kind).
			WithHint("%s", recipe)
	}
	if h.Kind == Bypassed {
		return banger.Errorf(banger.CodeUnavailable, "this host resolves names by %s", h.Kind).
			WithHint("let it lead there: ln -sf ../run/systemd/resolve/stub-resolv.conf /etc/resolv.conf")
	}
	return banger.Errorf(banger.CodeUnavailable,
		"this host resolves names by %s, which cannot ask a server for one domain only", map[bool]string{
			true:  "/etc/resolv.conf alone",
			false: "something unknown",
		}[h.Kind == Plain]).
		WithHint("install systemd-resolved or dnsmasq; or use addresses (banger ports VM) and banger ssh-config install")
}
