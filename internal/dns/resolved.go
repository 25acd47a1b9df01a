package dns

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"banger"
)

// resolvedRun is the directory of systemd-resolved's runtime state.
const resolvedRun = "run/systemd/resolve"

// checkServers returns an error if our server would affect the host's other names. The servers in resolved.conf are
// one list, and systemd-resolved asks any of them for all names, including ours. While the list is not empty, it
// asks neither the servers in a resolv.conf nor the built-in ones.
func (h Host) checkServers() error {
	const otherwise = "remove them there, so that the servers of network links are asked; " +
		"or use addresses (banger ports VM) and banger ssh-config install"
	if global := h.globalServers(); len(global) > 0 {
		return banger.Errorf(banger.CodeConflict,
			"systemd-resolved is configured with servers for all names (DNS=%s), which it would ask for ours too",
			strings.Join(global, " ")).
			WithHint(otherwise)
	}
	for _, source := range []struct{ pattern, key string }{{resolvedRun + "/netif/*", "SERVERS"},
		{"run/systemd/netif/links/*", "DNS"}} {
		files, _ := filepath.Glob(filepath.Join(h.Root, source.pattern))
		for _, f := range files {
			if slices.ContainsFunc(settings(f, "", source.key), func(v string) bool { return v != "" }) {
				return nil
			}
		}
	}
	return banger.Errorf(banger.CodeConflict,
		"no network link has a DNS server, so that systemd-resolved would ask ours alone and find no other name").
		WithHint("see: resolvectl dns; a link gets servers from DHCP, or by its own configuration")
}

// globalServers returns the servers of resolved.conf and of all drop-ins except ours. The drop-ins are sorted by
// name; of those with the same name, the one in the last of these directories counts (resolved.conf(5)).
func (h Host) globalServers() []string {
	files := map[string]string{}
	for _, dir := range []string{"usr/lib", "usr/local/lib", "run", "etc"} {
		found, _ := filepath.Glob(filepath.Join(h.Root, dir, "systemd/resolved.conf.d/*.conf"))
		for _, f := range found {
			files[filepath.Base(f)] = f
		}
	}
	delete(files, filepath.Base(dropIn))
	order := []string{filepath.Join(h.Root, "etc/systemd/resolved.conf")}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		order = append(order, files[name])
	}
	var servers []string
	for _, f := range order {
		for _, v := range settings(f, "Resolve", "DNS") {
			if v == "" { // an empty value clears the list
				servers = nil
			}
			servers = append(servers, strings.Fields(v)...)
		}
	}
	return servers
}

// settings returns the values of a key in a section of a file, in order, as systemd reads them.
func settings(file, section, key string) []string {
	data, _ := os.ReadFile(file)
	var values []string
	inside := section == ""
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "[") {
			inside = line == "["+section+"]"
		}
		if k, v, ok := strings.Cut(line, "="); ok && inside && strings.TrimSpace(k) == key {
			values = append(values, strings.TrimSpace(v))
		}
	}
	return values
}

// asksResolved reports whether the C library asks systemd-resolved through its own module, whatever resolv.conf
// says.
func (h Host) asksResolved() bool {
	data, _ := os.ReadFile(filepath.Join(h.Root, "etc/nsswitch.conf"))
	for line := range strings.Lines(string(data)) {
		if modules, ok := strings.CutPrefix(strings.TrimSpace(line), "hosts:"); ok {
			return slices.Contains(strings.Fields(modules), "resolve")
		}
	}
	return false
}
