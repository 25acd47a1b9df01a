package registry

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"

	"banger"
	"banger/internal/blob"
)

// configuration is a registries.conf (containers-registries.conf(5), version 2).
type configuration struct {
	Registry []location
}

type location struct {
	Prefix   string
	Location string
	Insecure bool
	Blocked  bool
	ByDigest bool `toml:"mirror-by-digest-only"`
	Mirror   []struct {
		Location string
		Insecure bool
		Pull     string `toml:"pull-from-mirror"`
	}
}

// hostsFile is a hosts.toml of containerd (docs/hosts.md).
type hostsFile struct {
	Server string
	Host   map[string]struct {
		Capabilities []string
		CA           any
		SkipVerify   bool `toml:"skip_verify"`
		OverridePath bool `toml:"override_path"`
	}
}

// endpoints returns where a reference can be read, in the order in which to ask: first the mirrors
// in the host's files, then the registry.
func (c *Client) endpoints(r reference) ([]endpoint, error) {
	host := r.repo.RegistryStr()
	shown := host
	if host == name.DefaultRegistry {
		shown = "docker.io" // the name in all configuration files
	}
	own := endpoint{registry: r.repo.Registry, path: "/v2", repository: r.repo.RepositoryStr()}
	list, err := c.fromContainers(shown+"/"+r.repo.RepositoryStr(), r.isDigest(), &own)
	if err != nil {
		return nil, err
	}
	more, err := c.fromContainerd(shown, r, &own)
	if err != nil {
		return nil, err
	}
	return append(append(list, more...), own), nil
}

// fromContainers applies the best matching [[registry]] of all registries.conf files. It may change
// own.
func (c *Client) fromContainers(full string, byDigest bool, own *endpoint) ([]endpoint, error) {
	files, err := c.configurations()
	if err != nil {
		return nil, err
	}
	var best location
	var from, rest string
	for _, f := range files {
		var conf configuration
		if err := readTOML(f, &conf); err != nil {
			return nil, err
		}
		for _, l := range conf.Registry {
			if l.Prefix == "" {
				l.Prefix = l.Location
			}
			if after, ok := cutPrefix(full, l.Prefix); ok && len(l.Prefix) >= len(best.Prefix) {
				best, from, rest = l, f, after
			}
		}
	}
	if best.Blocked {
		return nil, blob.Permanent(banger.Errorf(banger.CodeDenied, "%s is blocked by %s", best.Prefix, from))
	}
	list, err := best.apply(rest, byDigest, own)
	if err != nil {
		return nil, blob.Permanent(banger.Errorf(banger.CodeInvalid, "cannot use %s: %w", from, err))
	}
	return list, nil
}

// configurations returns the existing files among those that containers-registries.conf(5) names.
func (c *Client) configurations() ([]string, error) {
	first := filepath.Join(c.opts.Etc, "containers/registries.conf")
	if home := c.opts.Getenv("HOME"); home != "" {
		own := filepath.Join(home, ".config/containers/registries.conf")
		if _, err := os.Stat(own); err == nil {
			first = own
		}
	}
	if v := c.opts.Getenv("CONTAINERS_REGISTRIES_CONF"); v != "" {
		first = v
	}
	files := []string{first}
	dirs := []string{c.opts.Etc}
	if home := c.opts.Getenv("HOME"); home != "" {
		dirs = append(dirs, filepath.Join(home, ".config"))
	}
	for _, dir := range dirs {
		extra, err := filepath.Glob(filepath.Join(dir, "containers/registries.conf.d/*.conf"))
		if err != nil {
			return nil, badFile(dir, "has a name that cannot be searched")
		}
		files = append(files, extra...)
	}
	return files, nil
}

// apply changes own to the real location of the registry and returns its mirrors. rest is what
// follows the location's prefix.
func (l *location) apply(rest string, byDigest bool, own *endpoint) (list []endpoint, err error) {
	at := own.registry.RegistryStr() + "/" + own.repository
	moved := l.Location != ""
	if moved {
		at = l.Location + rest
	}
	if moved || l.Insecure {
		if err := own.move(at, l.Insecure); err != nil {
			return nil, err
		}
	}
	for _, m := range l.Mirror {
		if (l.ByDigest || m.Pull == "digest-only") && !byDigest || m.Pull == "tag-only" && byDigest {
			continue
		}
		e := endpoint{path: "/v2"}
		if err := e.move(m.Location+rest, m.Insecure); err != nil {
			return nil, err
		}
		list = append(list, e)
	}
	return list, nil
}

// cutPrefix returns what follows a prefix in a registry's configuration. A prefix consists of whole
// parts of a path, or starts with *. and then matches all hosts below a domain, on any port.
func cutPrefix(full, prefix string) (rest string, ok bool) {
	host, path, _ := strings.Cut(full, "/")
	if domain, wild := strings.CutPrefix(prefix, "*."); wild {
		labels, below := strings.CutSuffix(canonicalHost(hostOf(host)), "."+canonicalHost(domain))
		return "/" + path, below && labels != ""
	}
	at, under, deep := strings.Cut(prefix, "/")
	if at == "" || canonicalHost(host) != canonicalHost(at) {
		return "", false
	}
	if deep {
		under = "/" + under
	}
	rest, ok = strings.CutPrefix("/"+path, under)
	return rest, ok && (rest == "" || rest[0] == '/')
}

// canonicalHost returns the canonical form of a host, with or without a port: names are equal
// regardless of case and of a dot at the end.
func canonicalHost(address string) string {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return strings.ToLower(strings.TrimSuffix(address, "."))
	}
	return net.JoinHostPort(strings.ToLower(strings.TrimSuffix(host, ".")), port)
}

// move changes the endpoint to another host/repository.
func (e *endpoint) move(location string, insecure bool) error {
	var opts []name.Option
	if insecure {
		opts = append(opts, name.Insecure)
		e.skipVerify, e.plain = true, true
	}
	repo, err := name.NewRepository(location, opts...)
	if err != nil {
		return err
	}
	e.registry, e.repository = repo.Registry, repo.RepositoryStr()
	return nil
}

// fromContainerd applies the hosts.toml of a registry. It may change own.
func (c *Client) fromContainerd(shown string, r reference, own *endpoint) ([]endpoint, error) {
	file := filepath.Join(c.opts.Etc, "containerd/certs.d", shown, "hosts.toml")
	if _, err := os.Stat(file); err != nil {
		file = filepath.Join(c.opts.Etc, "containerd/certs.d/_default/hosts.toml")
	}
	var conf hostsFile
	if err := readTOML(file, &conf); err != nil {
		return nil, err
	}
	list, err := conf.mirrors(file, shown, r)
	if err == nil && conf.Server != "" {
		*own, err = atURL(conf.Server, r.repo.RepositoryStr(), false)
	}
	if err != nil {
		return nil, blob.Permanent(banger.Errorf(banger.CodeInvalid, "cannot use %s: %w", file, err))
	}
	return list, nil
}

// mirrors returns the hosts that may be asked for r, in the order of the file, which a map does not
// keep.
func (conf *hostsFile) mirrors(file, shown string, r reference) (list []endpoint, err error) {
	for _, k := range hostsInOrder(file) {
		h := conf.Host[k]
		can := func(what string) bool {
			return len(h.Capabilities) == 0 || slices.ContainsFunc(h.Capabilities, func(c string) bool {
				return strings.EqualFold(c, what)
			})
		}
		if !can("pull") || !r.isDigest() && !can("resolve") {
			continue
		}
		e, err := atURL(k, r.repo.RepositoryStr(), h.OverridePath)
		if err != nil {
			return nil, err
		}
		e.query, e.skipVerify = "ns="+url.QueryEscape(shown), h.SkipVerify
		for _, ca := range texts(h.CA) {
			if !filepath.IsAbs(ca) {
				ca = filepath.Join(filepath.Dir(file), ca)
			}
			e.ca = append(e.ca, ca)
		}
		list = append(list, e)
	}
	return list, nil
}

// containerdHosts returns the hosts in all hosts.toml files of containerd.
func (c *Client) containerdHosts() (list []string) {
	files, err := filepath.Glob(filepath.Join(c.opts.Etc, "containerd/certs.d/*/hosts.toml"))
	if err != nil {
		return nil
	}
	for _, f := range files {
		var conf hostsFile
		if readTOML(f, &conf) != nil {
			continue
		}
		for _, at := range append(slices.Collect(maps.Keys(conf.Host)), conf.Server) {
			if e, err := atURL(at, "x", true); err == nil {
				list = append(list, e.registry.RegistryStr())
			}
		}
	}
	return list
}

// hostsInOrder returns the keys of the tables [host.KEY] in the order of the file.
func hostsInOrder(file string) (keys []string) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil // the file does not exist, so it names no host
	}
	var p unstable.Parser
	p.Reset(data)
	for p.NextExpression() {
		e := p.Expression()
		if e.Kind != unstable.Table {
			continue
		}
		var parts []string
		for it := e.Key(); it.Next(); {
			parts = append(parts, string(it.Node().Data))
		}
		if len(parts) > 1 && parts[0] == "host" && !slices.Contains(keys, parts[1]) {
			keys = append(keys, parts[1])
		}
	}
	return keys
}

// atURL returns the endpoint at https://host:port/path. Plain HTTP needs an explicit http://.
func atURL(at, repository string, whole bool) (endpoint, error) {
	if !strings.Contains(at, "://") {
		at = "https://" + at
	}
	u, err := url.Parse(at)
	if err != nil {
		return endpoint{}, fmt.Errorf("%.200q is no URL", at)
	}
	var opts []name.Option
	if u.Scheme == "http" {
		opts = append(opts, name.Insecure)
	}
	reg, err := name.NewRegistry(u.Host, opts...)
	e := endpoint{registry: reg, path: strings.TrimSuffix(u.Path, "/"), repository: repository, plain: u.Scheme == "http"}
	if !whole && !strings.HasSuffix(e.path, "/v2") {
		e.path += "/v2"
	}
	return e, err
}

// texts returns a list for v, which is a string or a list of strings.
func texts(v any) (list []string) {
	switch v := v.(type) {
	case string:
		return []string{v}
	case []any:
		for _, t := range v {
			list = append(list, texts(t)...)
		}
	}
	return list
}

// readTOML decodes a file into v. It leaves v unchanged if the file does not exist.
func readTOML(file string, v any) error {
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return badFile(file, "cannot be read")
	}
	if err := toml.Unmarshal(data, v); err != nil {
		line := ""
		if at, ok := errors.AsType[*toml.DecodeError](err); ok {
			row, _ := at.Position()
			line = fmt.Sprintf(", see line %d", row)
		}
		return badFile(file, "is not of the form that its users read"+line)
	}
	return nil
}
