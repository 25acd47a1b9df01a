package registry

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"golang.org/x/net/http/httpproxy"
)

// endpoint is one place where a repository can be read: the registry or a mirror.
type endpoint struct {
	registry   name.Registry
	path       string // before the repository: /v2
	repository string
	query      string // ns=… for mirrors of containerd
	skipVerify bool
	plain      bool     // may be spoken to in the clear
	ca         []string // files, besides those of the certs.d directories
}

// url is of a thing in the repository. The transport sets the scheme right.
func (e endpoint) url(path string) string {
	u := url.URL{Scheme: "https", Host: e.registry.RegistryStr(), Path: e.path + "/" + e.repository + "/" + path, RawQuery: e.query}
	return u.String()
}

// authorised returns a transport that may do actions in an endpoint's repository. It
// asks the registry how to log in, once.
func (c *Client) authorised(ctx context.Context, e endpoint, actions string) (http.RoundTripper, error) {
	repo, err := name.NewRepository(e.registry.RegistryStr() + "/" + e.repository)
	if err != nil {
		return nil, permanent{err}
	}
	key := e.key(actions)
	c.mu.Lock()
	rt := c.transports[key]
	c.mu.Unlock()
	if rt != nil {
		return rt, nil
	}
	base, err := c.base(e)
	if err != nil {
		return nil, permanent{err}
	}
	auth, err := c.credential(e.registry.RegistryStr(), e.repository)
	if err != nil {
		return nil, permanent{err}
	}
	if rt, err = transport.NewWithContext(ctx, e.registry, auth, base, []string{repo.Scope(actions)}); err != nil {
		return nil, loginError(ctx, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.transports[key] = rt
	return rt, nil
}

// loginError marks what the library refuses to do, such as to log in at another host's
// private address, as permanent. What a network or a status does to it has a type.
func loginError(ctx context.Context, err error) error {
	_, network := errors.AsType[*url.Error](err)
	_, status := errors.AsType[*transport.Error](err)
	if network || status || ctx.Err() != nil {
		return err
	}
	return permanent{err}
}

func (e endpoint) key(actions string) string { return fmt.Sprintln(e, actions) }

// forget makes the next call of authorised read the credentials again.
func (c *Client) forget(e endpoint, actions string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.transports, e.key(actions))
}

// base returns the transport below the logging in: proxies, certificates, and the
// guard that keeps a registry from sending us to this host's own services.
func (c *Client) base(e endpoint) (http.RoundTripper, error) {
	conf, err := c.tlsConfig(e)
	if err != nil {
		return nil, err
	}
	proxies := httpproxy.Config{HTTPProxy: c.either("HTTP_PROXY"), HTTPSProxy: c.either("HTTPS_PROXY"), NoProxy: c.either("NO_PROXY")}
	choose := proxies.ProxyFunc()
	g := &guard{own: hostOf(e.registry.RegistryStr()), plain: e.plain, allowed: map[string]bool{}}
	for _, p := range []string{proxies.HTTPProxy, proxies.HTTPSProxy} {
		if u, err := url.Parse(p); err == nil && u.Host != "" {
			g.proxies = append(g.proxies, u.Hostname())
		} else if p != "" {
			g.proxies = append(g.proxies, hostOf(p))
		}
	}
	g.next = &http.Transport{
		Proxy:       func(req *http.Request) (*url.URL, error) { return choose(req.URL) },
		DialContext: g.dial, TLSClientConfig: conf, TLSHandshakeTimeout: 10 * time.Second, ResponseHeaderTimeout: 30 * time.Second,
		MaxIdleConnsPerHost: 16, IdleConnTimeout: 30 * time.Second, ForceAttemptHTTP2: true, DisableCompression: true,
	}
	return g, nil
}

// either reads a variable in capitals or not, as curl does.
func (c *Client) either(name string) string {
	if v := c.opts.Getenv(name); v != "" {
		return v
	}
	return c.opts.Getenv(strings.ToLower(name))
}

func hostOf(address string) string {
	if host, _, err := net.SplitHostPort(address); err == nil {
		return host
	}
	return strings.Trim(address, "[]")
}

// guard refuses connections to addresses that only this host or its cloud can mean,
// unless the registry itself was addressed there. It looks at the address that is
// dialled, so that names which resolve to one do not help.
type guard struct {
	own     string // host of the registry, as the user wrote it
	plain   bool   // it may be spoken to in the clear
	proxies []string
	next    *http.Transport

	mu      sync.Mutex
	allowed map[string]bool // kinds of address that the registry itself has
}

// errGuard is permanent.
func errGuard(host, kind string) error {
	return permanent{fmt.Errorf("it sends us to %.200s, which is a %s address", host, kind)}
}

func (g *guard) RoundTrip(req *http.Request) (*http.Response, error) {
	host := req.URL.Hostname() // a proxy would connect for us
	kind := kindOfName(host)
	if host == g.own && req.URL.Scheme == "http" && !g.plain && kind != "loopback" {
		return nil, permanent{fmt.Errorf("%s does not answer by https, and nothing says that it may be asked without (insecure = true in registries.conf)", g.own)}
	}
	if host != g.own && kind != "" && !g.allows(kind) {
		return nil, errGuard(host, kind)
	}
	if host == g.own && kind != "" {
		g.allow(kind)
	}
	return g.next.RoundTrip(req)
}

// kindOfName is kindOf for a host in a URL, before anybody has resolved it.
func kindOfName(host string) string {
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	if ip, err := netip.ParseAddr(host); err == nil {
		return kindOf(ip)
	}
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return "loopback"
	}
	// Resolvers take 127.1, 2130706433 and 0x7f.1 for addresses (inet_aton(3)).
	last := host[strings.LastIndexByte(host, '.')+1:]
	if _, err := strconv.ParseUint(last, 0, 64); err == nil {
		return "numeric"
	}
	return ""
}

func (g *guard) allow(kind string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.allowed[kind] = true
}

func (g *guard) allows(kind string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.allowed[kind]
}

func (g *guard) dial(ctx context.Context, network, address string) (net.Conn, error) {
	host := hostOf(address)
	d := net.Dialer{Timeout: 10 * time.Second, ControlContext: func(_ context.Context, _, resolved string, _ syscall.RawConn) error {
		at, err := netip.ParseAddrPort(resolved)
		if err != nil {
			return permanent{err}
		}
		kind := kindOf(at.Addr())
		if kind == "" {
			return nil
		}
		if host == g.own {
			g.allow(kind)
			return nil
		}
		for _, p := range g.proxies {
			if p == host {
				return nil
			}
		}
		if g.allows(kind) {
			return nil
		}
		return errGuard(host, kind)
	}}
	return d.DialContext(ctx, network, address)
}

// Addresses where clouds tell a machine its secrets, besides link-local ones.
var metadata = map[netip.Addr]bool{netip.MustParseAddr("100.100.100.200"): true, netip.MustParseAddr("fd00:ec2::254"): true, netip.MustParseAddr("192.0.0.192"): true,
	netip.MustParseAddr("168.63.129.16"): true}

// kindOf returns "" for an address like any other.
func kindOf(ip netip.Addr) string {
	ip = ip.Unmap()
	switch {
	case !ip.IsValid():
		return ""
	case ip.IsLoopback():
		return "loopback"
	case ip.IsLinkLocalUnicast(), ip.IsLinkLocalMulticast():
		return "link-local"
	case ip.IsUnspecified(), ip.IsMulticast():
		return "unspecified"
	case metadata[ip]:
		return "metadata"
	}
	return ""
}

// tlsConfig reads the certificates that docker's and podman's directories have for a
// registry (docker, "Verify repository client with certificates"; containers-certs.d(5)).
func (c *Client) tlsConfig(e endpoint) (*tls.Config, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: e.skipVerify}
	host := e.registry.RegistryStr()
	cas := e.ca
	dirs := []string{filepath.Join(c.opts.Etc, "docker", "certs.d"), filepath.Join(c.opts.Etc, "containers", "certs.d")}
	if home := c.opts.Getenv("HOME"); home != "" {
		dirs = append(dirs, filepath.Join(home, ".config", "containers", "certs.d"))
	}
	for _, dir := range dirs {
		found, err := os.ReadDir(filepath.Join(dir, host))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		for _, entry := range found {
			f := filepath.Join(dir, host, entry.Name())
			switch filepath.Ext(f) {
			case ".crt":
				cas = append(cas, f)
			case ".cert":
				pair, err := tls.LoadX509KeyPair(f, strings.TrimSuffix(f, ".cert")+".key")
				if err != nil {
					return nil, fmt.Errorf("reading the client certificate for %s: %w", host, err)
				}
				conf.Certificates = append(conf.Certificates, pair)
			}
		}
	}
	if len(cas) == 0 {
		return conf, nil
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	for _, f := range cas {
		pem, err := os.ReadFile(f)
		if err == nil && !pool.AppendCertsFromPEM(pem) {
			err = errors.New("it holds no certificate")
		}
		if err != nil {
			return nil, fmt.Errorf("reading the CA %s: %w", f, err)
		}
	}
	conf.RootCAs = pool
	return conf, nil
}
