package dns

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"banger"
)

// resolvedRun is where systemd-resolved keeps what it knows while it runs.
const resolvedRun = "run/systemd/resolve"

// checkServers makes sure that a server of ours takes nothing from the host's other
// names. Those that resolved.conf names are one list, of which systemd-resolved asks any
// for all names, ours included; and while the list is not empty, neither the servers of
// a resolv.conf nor those that were built in are asked.
func (h Host) checkServers() error {
	const otherwise = "remove them there, so that the servers of network links are asked; or use addresses (banger ports VM) and banger ssh-config install"
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

// globalServers are those of resolved.conf and of all drop-ins but ours: sorted by name,
// of equal names the one in the last of these directories (resolved.conf(5)).
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
			if v == "" { // starts the list anew
				servers = nil
			}
			servers = append(servers, strings.Fields(v)...)
		}
	}
	return servers
}

// settings returns the values of a key of a section of a file as systemd has them, in
// their order.
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

// asksResolved says whether the C library asks systemd-resolved by its own module,
// whatever resolv.conf names.
func (h Host) asksResolved() bool {
	data, _ := os.ReadFile(filepath.Join(h.Root, "etc/nsswitch.conf"))
	for line := range strings.Lines(string(data)) {
		if modules, ok := strings.CutPrefix(strings.TrimSpace(line), "hosts:"); ok {
			return slices.Contains(strings.Fields(modules), "resolve")
		}
	}
	return false
}
