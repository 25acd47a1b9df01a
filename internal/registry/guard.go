package registry

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/net/publicsuffix"

	"banger/internal/ipaddr"
)

// guard refuses connections to special addresses and to this host, unless the user addressed the
// registry by such an address or the configuration names the host. It decides at each connection,
// by the address that is dialled: an earlier resolution of a name does not count.
type guard struct {
	client  *Client
	own     string   // host of the registry, as the user or the configuration wrote it
	address string   // the same with its port, if it has one
	plain   bool     // it may be used without TLS
	proxies []string // host:port of the user's proxies
	next    *http.Transport

	mayFallBack bool // it is also asked without TLS: the configuration or its address say so
	proxyFor    func(*url.URL) (*url.URL, error)
}

// kinds are all kinds of an address, including whether it belongs to this host.
type kinds []string

// numeric is the kind of 127.1 and 0x7f.1, which resolvers accept as addresses (inet_aton(3)).
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

// kindsOfName is kindsOf for a host in a URL that was not resolved yet.
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
		return kinds{string(ipaddr.Private)} // no such name exists on the Internet (RFC 6762, RFC 8375)
	}
	return nil
}

// within reports whether own contains all of k.
func (k kinds) within(own kinds) bool {
	return !slices.ContainsFunc(k, func(kind string) bool { return !slices.Contains(own, kind) })
}

// configurable reports whether a host that the configuration names may have such an address.
func (k kinds) configurable() bool {
	return k.within(kinds{string(ipaddr.Loopback), string(ipaddr.Private), string(ipaddr.Host)})
}

// check returns a permanent error if host may not lead to an address of kinds k.
func (g *guard) check(host string, k kinds) error {
	if k.within(kindsOfName(g.own)) || k.configurable() && g.client.names(host) {
		return nil
	}
	return refuse("it sends us to %.200s, which is a %s address; "+
		"a [[registry]] of registries.conf that names the host may allow it", host, strings.Join(k, " and "))
}

// RoundTrip checks the host in the URL, because a proxy would connect for us, and whether that host
// may get a password.
func (g *guard) RoundTrip(req *http.Request) (*http.Response, error) {
	host := req.URL.Hostname()
	k, own := kindsOfName(host), canonicalHost(host) == canonicalHost(g.own)
	if own && req.URL.Scheme == "http" && !g.plain && !slices.Contains(k, string(ipaddr.Loopback)) {
		return nil, &fault{text: g.own + " does not answer by https", hint: insecureAdvice(g.address), final: true}
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
	return g.send(req)
}

// send sends a request, unless its host has never answered in this operation. It ends requests to silent hosts, and
// describes what fails.
func (g *guard) send(req *http.Request) (*http.Response, error) {
	host := req.URL.Scheme + "://" + req.URL.Host
	if err := g.client.givenUp(host); err != nil {
		return nil, err
	}
	proxy, err := g.proxyFor(req.URL)
	if err != nil {
		return nil, refuse("%s of your environment is no address of a proxy", proxyVariable(req.URL.Scheme))
	}
	silence := g.client.opts.Silence
	ctx, watch := startWatch(req, silence)
	res, err := g.next.RoundTrip(req.WithContext(ctx))
	at := watch.stop()
	if err != nil {
		silent := context.Cause(ctx) == errSilent
		watch.cancel(nil)
		if req.Context().Err() != nil {
			return nil, err
		}
		a := attempt{req: req, proxy: proxy, at: at, plain: g.mayFallBack, host: g.address}
		if silent {
			a.silence = silence
			if at == sent {
				a.silence = watch.answer
			}
		}
		err = a.explain(err)
		g.client.note(host, err)
		return nil, err
	}
	g.client.note(host, nil)
	if res.StatusCode == http.StatusTooManyRequests {
		g.client.noteBusy(retryAfter(res.Header.Get("Retry-After")))
	}
	if isBlob(req) {
		silence = 0 // the store of blobs watches these
	}
	res.Body = &watchedBody{res.Body, watch.cancel, silence, req.URL.Host}
	return res, nil
}

// givenUp returns the fault of a host that was asked before and has never answered.
func (c *Client) givenUp(host string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.silent[host]
}

// note notes whether a host has answered. A host that has answered once is asked again whatever happens.
func (c *Client) note(host string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case err == nil:
		c.answered[host] = true
		delete(c.silent, host)
	case !c.answered[host] && isPermanent(err):
		c.silent[host] = err
	}
}

// noteBusy notes the pause that a registry asked for.
func (c *Client) noteBusy(pause time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.busy = pause
}

// carriesPassword reports whether a request identifies the user, by HTTP's basic login or by
// OAuth's refresh token in a form. A registry's token is given only to that registry.
func carriesPassword(req *http.Request) bool {
	scheme, _, _ := strings.Cut(req.Header.Get("Authorization"), " ")
	form := strings.HasPrefix(req.Header.Get("Content-Type"), "application/x-www-form-urlencoded")
	return strings.EqualFold(scheme, "Basic") || req.Method == http.MethodPost && form
}

// checkRealm returns an error unless host may get the password that the user has stored for the
// registry. Hosts of the same domain may, and hosts at which the user has logged in.
func (g *guard) checkRealm(host, address string) error {
	if sameSite(g.own, host) {
		return nil
	}
	if slices.Contains(g.client.access.Known, canonicalHost(address)) {
		return nil
	}
	return refuse("it wants the password sent to %.200s, which is of another domain; a login at that host allows it",
		address)
}

// sameSite reports whether two hosts belong to one owner: they are equal, are both loopback, or are
// below the same registrable domain.
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
			return refuse("it is at %.100q, which is no address", resolved)
		}
		if slices.Contains(g.proxies, address) {
			return nil
		}
		return g.check(host, kindsOf(at.Addr()))
	}
	d := net.Dialer{Timeout: 2 * g.client.opts.Silence, Resolver: g.client.opts.Resolver, ControlContext: control}
	return d.DialContext(ctx, network, address)
}

// names reports whether the configuration names a host as a source of images: in a [[registry]] or
// a mirror of registries.conf, or as a directory of certs.d. It reads the files each time, so a
// change takes effect at once.
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
		entries, _ := os.ReadDir(dir) // an unreadable directory names no host
		for _, e := range entries {
			places = append(places, e.Name())
		}
	}
	return slices.ContainsFunc(append(places, c.containerdHosts()...), func(place string) bool {
		at, _, _ := strings.Cut(place, "/")
		return at != "" && canonicalHost(hostOf(at)) == canonicalHost(host)
	})
}
