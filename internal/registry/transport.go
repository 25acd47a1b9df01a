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
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"golang.org/x/net/http/httpproxy"

	"banger"
	"banger/internal/blob"
)

// endpoint is a place where a repository can be read: the registry or a mirror.
type endpoint struct {
	registry   name.Registry
	path       string // before the repository: /v2
	repository string
	query      string // ns=… for mirrors of containerd
	skipVerify bool
	plain      bool     // it may be used without TLS
	ca         []string // files, in addition to those of the certs.d directories
}

// url returns the URL of an object in the repository. The transport corrects the scheme.
func (e endpoint) url(path string) string {
	u := url.URL{
		Scheme:   "https",
		Host:     e.registry.RegistryStr(),
		Path:     e.path + "/" + e.repository + "/" + path,
		RawQuery: e.query,
	}
	return u.String()
}

// place returns HOST[:PORT]/REPOSITORY, for which there may be a login.
func (e endpoint) place() string { return e.registry.RegistryStr() + "/" + e.repository }

// authorised returns a transport that may do actions in an endpoint's repository. It asks the
// registry once how to log in.
func (c *Client) authorised(ctx context.Context, e endpoint, actions string) (http.RoundTripper, error) {
	repo, err := name.NewRepository(e.registry.RegistryStr() + "/" + e.repository)
	if err != nil {
		return nil, blob.Permanent(err)
	}
	key := fmt.Sprintln(e, actions)
	c.mu.Lock()
	rt := c.transports[key]
	c.mu.Unlock()
	if rt != nil {
		return rt, nil
	}
	base, err := c.base(e)
	if err != nil {
		return nil, blob.Permanent(err)
	}
	login, _ := c.access.Login(e.place())
	rt, err = transport.NewWithContext(ctx, e.registry, authenticator(login), base, []string{repo.Scope(actions)})
	if err != nil {
		return nil, loginError(ctx, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.transports[key] = rt
	return rt, nil
}

// loginError marks an error as permanent if the library refused to do something, such as to log in
// at another host's private address. Errors of the network and of a status have types of their own.
func loginError(ctx context.Context, err error) error {
	_, network := errors.AsType[*url.Error](err)
	_, status := errors.AsType[*transport.Error](err)
	if network || status || ctx.Err() != nil {
		return err
	}
	return blob.Permanent(err)
}

// authenticator returns a login as the library wants it. Without a login it is anonymous.
func authenticator(l banger.RegistryLogin) authn.Authenticator {
	return authn.FromConfig(authn.AuthConfig{Username: l.Username, Password: string(l.Password),
		IdentityToken: string(l.IdentityToken), RegistryToken: string(l.RegistryToken)})
}

// base returns the transport below the login: proxies, certificates, and the guard that keeps a
// registry from directing us to this host's own services.
func (c *Client) base(e endpoint) (http.RoundTripper, error) {
	conf, err := c.tlsConfig(e)
	if err != nil {
		return nil, err
	}
	proxies := httpproxy.Config{
		HTTPProxy:  string(c.access.HTTPProxy),
		HTTPSProxy: string(c.access.HTTPSProxy),
		NoProxy:    c.access.NoProxy,
	}
	g := &guard{client: c, own: hostOf(e.registry.RegistryStr()), address: e.registry.RegistryStr(), plain: e.plain,
		mayFallBack: e.registry.Scheme() == "http", proxyFor: proxies.ProxyFunc()}
	for _, p := range []string{proxies.HTTPProxy, proxies.HTTPSProxy} {
		g.proxies = append(g.proxies, proxyAddress(p))
	}
	g.next = &http.Transport{
		Proxy:               func(req *http.Request) (*url.URL, error) { return g.proxyFor(req.URL) },
		DialContext:         g.dial,
		TLSClientConfig:     conf,
		TLSHandshakeTimeout: 2 * c.opts.Silence, // watch ends it earlier; this frees what it has left
		MaxIdleConnsPerHost: 16,
		IdleConnTimeout:     30 * time.Second,
		ForceAttemptHTTP2:   true,
		DisableCompression:  true,
		OnProxyConnectResponse: func(_ context.Context, proxy *url.URL, req *http.Request, res *http.Response) error {
			return proxyRefusal(proxy, req.Host, res)
		},
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.bases = append(c.bases, g.next)
	return g, nil
}

// proxyAddress returns the address of the proxy in a variable, or "" if there is none.
func proxyAddress(proxy string) string {
	u, err := url.Parse(proxy)
	if err != nil || u.Host == "" {
		u, err = url.Parse("http://" + proxy) // the scheme may be missing
	}
	if proxy == "" || err != nil {
		return ""
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"https": "443", "socks5": "1080", "socks5h": "1080"}[u.Scheme]
	}
	if port == "" {
		port = "80"
	}
	return net.JoinHostPort(u.Hostname(), port)
}

func hostOf(address string) string {
	if host, _, err := net.SplitHostPort(address); err == nil {
		return host
	}
	return strings.Trim(address, "[]")
}

// certificateDirs returns the directories of docker and podman that have one directory for each
// registry.
func (c *Client) certificateDirs() []string {
	dirs := []string{filepath.Join(c.opts.Etc, "docker", "certs.d"), filepath.Join(c.opts.Etc, "containers", "certs.d")}
	if home := c.opts.Getenv("HOME"); home != "" {
		dirs = append(dirs, filepath.Join(home, ".config", "containers", "certs.d"))
	}
	return dirs
}

// tlsConfig reads the certificates for a registry in docker's and podman's directories (docker,
// "Verify repository client with certificates"; containers-certs.d(5)).
func (c *Client) tlsConfig(e endpoint) (*tls.Config, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: e.skipVerify}
	host := e.registry.RegistryStr()
	cas := e.ca
	for _, dir := range c.certificateDirs() {
		found, err := os.ReadDir(filepath.Join(dir, host))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, badFile(filepath.Join(dir, host), "cannot be read")
		}
		for _, entry := range found {
			f := filepath.Join(dir, host, entry.Name())
			switch filepath.Ext(f) {
			case ".crt":
				cas = append(cas, f)
			case ".cert":
				pair, err := tls.LoadX509KeyPair(f, strings.TrimSuffix(f, ".cert")+".key")
				if err != nil {
					return nil, badFile(f, "and its .key are no certificate of a client for "+host)
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
		if err != nil {
			return nil, badFile(f, "cannot be read")
		}
		if !pool.AppendCertsFromPEM(pem) {
			return nil, badFile(f, "holds no certificate")
		}
	}
	conf.RootCAs = pool
	return conf, nil
}

// badFile returns the error for a file of the host's configuration that cannot be used.
func badFile(path, why string) error {
	return blob.Permanent(banger.Errorf(banger.CodeInvalid, "the file %s %s", path, why).WithHint("correct or remove it"))
}
