package registry

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"golang.org/x/net/publicsuffix"

	"banger/internal/ipaddr"
)

// guard refuses connections to special addresses and to this host, unless the registry itself
// was addressed by such an address, or the configuration names the host. It decides on each
// connection, by the address that is dialled: what a name led to before means nothing.
type guard struct {
	client  *Client
	own     string   // host of the registry, as the user or the configuration wrote it
	plain   bool     // it may be spoken to in the clear
	proxies []string // host:port of the user's proxies
	next    *http.Transport
}

// kinds says all that an address is: its kind, and whether it is this host's own.
type kinds []string

// numeric is the kind of 127.1 and 0x7f.1, which resolvers take for addresses (inet_aton(3)).
const numeric = "numeric"

func kindsOf(addr netip.Addr) (k kinds) {
	kind := ipaddr.KindOf(addr)
	if kind != "" {
		k = append(k, string(kind))
	}
	if kind != ipaddr.Loopback && ipaddr.RouteOf(addr) == ipaddr.Host {
		k = append(k, string(ipaddr.Host))
	}
	return k
}

// kindsOfName is kindsOf for a host in a URL, before anybody has resolved it.
func kindsOfName(host string) kinds {
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	if ip, err := netip.ParseAddr(host); err == nil {
		return kindsOf(ip)
	}
	labels := strings.Split(host, ".")
	last := labels[len(labels)-1]
	if _, err := strconv.ParseUint(last, 0, 64); err == nil {
		return kinds{numeric}
	}
	switch {
	case last == "localhost":
		return kinds{string(ipaddr.Loopback)}
	case len(labels) == 1, last == "local", last == "internal", strings.HasSuffix(host, ".home.arpa"):
		return kinds{string(ipaddr.Private)} // no such name is on the Internet (RFC 6762, RFC 8375)
	}
	return nil
}

// within reports whether the registry's own kinds hold all of k.
func (k kinds) within(own kinds) bool {
	return !slices.ContainsFunc(k, func(kind string) bool { return !slices.Contains(own, kind) })
}

// configurable reports whether a host that the configuration names may have such an address.
func (k kinds) configurable() bool {
	return k.within(kinds{string(ipaddr.Loopback), string(ipaddr.Private), string(ipaddr.Host)})
}

// check decides on an address, or a name, that host leads to. The error is permanent.
func (g *guard) check(host string, k kinds) error {
	if k.within(kindsOfName(g.own)) || k.configurable() && g.client.names(host) {
		return nil
	}
	return permanent{fmt.Errorf("it sends us to %.200s, which is a %s address; "+
		"a [[registry]] of registries.conf that names the host may allow it", host, strings.Join(k, " and "))}
}

// RoundTrip checks what the URL says, because a proxy would connect for us, and who gets a password.
func (g *guard) RoundTrip(req *http.Request) (*http.Response, error) {
	host := req.URL.Hostname()
	k, own := kindsOfName(host), canonicalHost(host) == canonicalHost(g.own)
	if own && req.URL.Scheme == "http" && !g.plain && !slices.Contains(k, string(ipaddr.Loopback)) {
		return nil, permanent{fmt.Errorf("%s does not answer by https, and nothing says that it may be asked without "+
			"(insecure = true in registries.conf)", g.own)}
	}
	if !own && len(k) > 0 {
		if err := g.check(host, k); err != nil {
			return nil, err
		}
	}
	if carriesPassword(req) {
		if err := g.checkRealm(host, req.URL.Host); err != nil {
			return nil, err
		}
	}
	return g.next.RoundTrip(req)
}

// carriesPassword reports whether a request shows who the user is, by HTTP's basic login or by the
// refresh token in a form of OAuth. A token of a registry is given to that registry alone.
func carriesPassword(req *http.Request) bool {
	scheme, _, _ := strings.Cut(req.Header.Get("Authorization"), " ")
	form := strings.HasPrefix(req.Header.Get("Content-Type"), "application/x-www-form-urlencoded")
	return strings.EqualFold(scheme, "Basic") || req.Method == http.MethodPost && form
}

// checkRealm decides whether host may get the password that the user has noted for the
// registry: hosts of the same domain may, and those at which the user has logged in.
func (g *guard) checkRealm(host, address string) error {
	if sameSite(g.own, host) {
		return nil
	}
	login, err := g.client.credential(address, "")
	if err != nil {
		return permanent{err}
	}
	if login != authn.Anonymous {
		return nil
	}
	return permanent{fmt.Errorf("it wants the password sent to %.200s, which is of another domain; "+
		"a login at that host allows it", address)}
}

// sameSite reports whether two hosts belong to one owner: they are the same, are both loopback,
// or are below the same domain that somebody can register.
func sameSite(a, b string) bool {
	a, b = canonicalHost(a), canonicalHost(b)
	if a == b {
		return true
	}
	loopback := func(host string) bool { return slices.Contains(kindsOfName(host), string(ipaddr.Loopback)) }
	if loopback(a) || loopback(b) {
		return loopback(a) && loopback(b)
	}
	for _, host := range []string{a, b} {
		if _, err := netip.ParseAddr(host); err == nil {
			return false
		}
	}
	domain, err := publicsuffix.EffectiveTLDPlusOne(a)
	other, err2 := publicsuffix.EffectiveTLDPlusOne(b)
	return err == nil && err2 == nil && domain == other
}

func (g *guard) dial(ctx context.Context, network, address string) (net.Conn, error) {
	host := hostOf(address)
	control := func(_ context.Context, _, resolved string, _ syscall.RawConn) error {
		at, err := netip.ParseAddrPort(resolved)
		if err != nil {
			return permanent{err}
		}
		if slices.Contains(g.proxies, address) {
			return nil
		}
		return g.check(host, kindsOf(at.Addr()))
	}
	d := net.Dialer{Timeout: 10 * time.Second, Resolver: g.client.opts.Resolver, ControlContext: control}
	return d.DialContext(ctx, network, address)
}

// names reports whether the configuration names a host as a place of images: a [[registry]] or a mirror
// of registries.conf, or a directory of certs.d. It reads the files, so that a change counts at once.
func (c *Client) names(host string) bool {
	files, err := c.configurations()
	if err != nil {
		return false
	}
	var places []string
	for _, f := range files {
		var conf configuration
		if readTOML(f, &conf) != nil {
			continue
		}
		for _, l := range conf.Registry {
			places = append(places, l.Prefix, l.Location)
			for _, m := range l.Mirror {
				places = append(places, m.Location)
			}
		}
	}
	for _, dir := range append(c.certificateDirs(), filepath.Join(c.opts.Etc, "containerd", "certs.d")) {
		entries, _ := os.ReadDir(dir) // one that cannot be read names nobody
		for _, e := range entries {
			places = append(places, e.Name())
		}
	}
	return slices.ContainsFunc(append(places, c.containerdHosts()...), func(place string) bool {
		at, _, _ := strings.Cut(place, "/")
		return at != "" && canonicalHost(hostOf(at)) == canonicalHost(host)
	})
}
