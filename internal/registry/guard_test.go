package registry

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/miekg/dns"
	"github.com/vishvananda/netlink"

	"banger"
	"banger/internal/testing/processtest"
	"banger/internal/testing/registrytest"
)

// Addresses of the host in these tests, besides loopback.
const (
	hostPublic  = "5.5.5.2"
	hostPrivate = "192.168.77.2"
)

// TestMain runs all tests in a new network namespace as root; for an ordinary user that needs a
// user namespace as well. The host has two addresses there.
func TestMain(m *testing.M) {
	processtest.InNamespace()
	if err := setUpHost(); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

func setUpHost() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	lan := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "lan"}, PeerName: "peer"}
	if err := errors.Join(netlink.LinkSetUp(lo), netlink.LinkAdd(lan), netlink.LinkSetUp(lan)); err != nil {
		return err
	}
	for _, text := range []string{hostPublic + "/24", hostPrivate + "/24"} {
		a, err := netlink.ParseAddr(text)
		if err == nil {
			err = netlink.AddrAdd(lan, a)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// resolver answers for each name with its address in names, as a DNS server does.
func resolver(t *testing.T, names map[string]string) *net.Resolver {
	t.Helper()
	pc, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	started, ended := make(chan struct{}), make(chan struct{})
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		r := new(dns.Msg).SetReply(q)
		r.Authoritative = true
		if at := names[strings.TrimSuffix(q.Question[0].Name, ".")]; at != "" && q.Question[0].Qtype == dns.TypeA {
			rr, err := dns.NewRR(q.Question[0].Name + " 0 A " + at)
			if err != nil {
				t.Error(err)
			}
			r.Answer = append(r.Answer, rr)
		}
		w.WriteMsg(r)
	})
	s := &dns.Server{PacketConn: pc, NotifyStartedFunc: func() { close(started) }, Handler: handler}
	go func() {
		s.ActivateAndServe()
		close(ended)
	}()
	<-started
	t.Cleanup(func() { s.Shutdown(); <-ended })
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "udp4", pc.LocalAddr().String())
	}}
}

// serveAt starts a server on an address of the host. The server counts requests.
func serveAt(t *testing.T, at string, h http.Handler) (addr string, count *atomic.Int64) {
	t.Helper()
	ln, err := net.Listen("tcp4", at+":0")
	if err != nil {
		t.Fatal(err)
	}
	count = new(atomic.Int64)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		count.Add(1)
		h.ServeHTTP(w, r)
	}))
	s.Listener.Close()
	s.Listener = ln
	s.Start()
	t.Cleanup(s.Close)
	return ln.Addr().String(), count
}

func insecure(hosts ...string) string {
	text := ""
	for _, h := range hosts {
		text += "[[registry]]\nlocation = \"" + h + "\"\ninsecure = true\n"
	}
	return text
}

// TestARegistryIsWhereItsNameSays checks what a registry at each address may be, for each kind of
// reference.
func TestARegistryIsWhereItsNameSays(t *testing.T) {
	for name, c := range map[string]struct {
		host, at string // NAME in a reference; where it is
		conf     string // registries.conf, besides that the name is insecure by a wildcard
		ok       bool
	}{
		"loopback":                              {"127.0.0.1", "127.0.0.1", "", true},
		"localhost":                             {"localhost", "127.0.0.1", "", true},
		"a private address":                     {hostPrivate, hostPrivate, "", true},
		"the host's public one":                 {hostPublic, hostPublic, "", true},
		"a name that leads to loopback":         {"evil.example.test", "127.0.0.1", "", false},
		"a name that leads to the host":         {"evil.example.test", hostPublic, "", false},
		"a name that leads to a private one":    {"evil.example.test", hostPrivate, "", false},
		"a name that is configured":             {"good.example.test", hostPrivate, "good.example.test", true},
		"one that is, and leads to loopback":    {"good.example.test", "127.0.0.1", "good.example.test", true},
		"another is configured":                 {"evil.example.test", hostPrivate, "good.example.test", false},
		"one that ends like the configured one": {"evilgood.example.test", hostPrivate, "good.example.test", false},
	} {
		t.Run(name, func(t *testing.T) {
			s, h := registrytest.New(), newHost(t)
			digest := s.AddImage("a", "v1", layer("x"))
			addr, asked := serveAt(t, c.at, s)
			port := addr[strings.LastIndexByte(addr, ':'):]
			host := c.host + port
			conf := "[[registry]]\nprefix = \"*.test\"\ninsecure = true\n" + insecure(hostPrivate+port, hostPublic+port)
			if c.conf != "" {
				conf += insecure(c.conf + port)
			}
			h.write("etc/containers/registries.conf", conf)
			h.resolver = resolver(t, map[string]string{c.host: c.at})
			d, err := h.client().Digest(bg, host+"/a:v1")
			if c.ok && (err != nil || d != digest) {
				t.Errorf("%s, %v", d, err)
			}
			if !c.ok {
				wantCode(t, err, banger.CodeUnavailable, "address")
				if !isPermanent(err) || asked.Load() > 0 {
					t.Errorf("it is asked %d times; %v", asked.Load(), err)
				}
			}
		})
	}
}

// TestAKindOfAddressIsDecidedForEachConnection checks that each connection is checked: a registry
// that was once on loopback may not use that later.
func TestAKindOfAddressIsDecidedForEachConnection(t *testing.T) {
	s, h := registrytest.New(), newHost(t)
	s.AddImage("a", "v1", layer("x"))
	addr, _ := serveAt(t, hostPublic, s)
	own, reached := serveAt(t, "127.0.0.1", http.NotFoundHandler())
	port := addr[strings.LastIndexByte(addr, ':'):]
	names := map[string]string{"registry.example.test": hostPublic, "inside.example.test": "127.0.0.1"}
	h.resolver = resolver(t, names)
	h.write("etc/containers/registries.conf", insecure("registry.example.test"+port))
	c := h.client()
	ref := "registry.example.test" + port + "/a:v1"
	if _, err := c.Manifest(bg, ref); err != nil {
		t.Fatal(err)
	}
	named := "http://inside.example.test" + own[strings.LastIndexByte(own, ':'):]
	for _, to := range []string{"http://" + own, named, "http://" + hostPrivate + ":1", "http://" + hostPublic + ":1"} {
		t.Run(to, func(t *testing.T) {
			s.Redirect(registrytest.Blob, to)
			_, err := c.Blob(bg, ref, s.AddBlob([]byte("x")), 0)
			wantCode(t, err, banger.CodeUnavailable, "address")
		})
	}
	if n := reached.Load(); n > 0 {
		t.Errorf("the host's own service was reached %d times", n)
	}
}

// TestRedirectsStayWithinTheKindOfTheReference checks redirects to each kind of address, from
// registries that are named by addresses.
func TestRedirectsStayWithinTheKindOfTheReference(t *testing.T) {
	for name, c := range map[string]struct {
		from, to string
		ok       bool
	}{
		"loopback to loopback":         {"127.0.0.1", "127.0.0.1", true},
		"loopback to the host's LAN":   {"127.0.0.1", hostPrivate, false},
		"loopback to the host":         {"127.0.0.1", hostPublic, false},
		"the host's LAN to itself":     {hostPrivate, hostPrivate, true},
		"the host's LAN to loopback":   {hostPrivate, "127.0.0.1", false},
		"the host's LAN to the public": {hostPrivate, hostPublic, true}, // both are this host's
		"the public to the host's LAN": {hostPublic, hostPrivate, false},
		"the public to itself":         {hostPublic, hostPublic, true},
	} {
		t.Run(name, func(t *testing.T) {
			s, storage, h := registrytest.New(), registrytest.New(), newHost(t)
			digest := storage.AddBlob([]byte("content"))
			from, _ := serveAt(t, c.from, s)
			to, reached := serveAt(t, c.to, storage)
			h.write("etc/containers/registries.conf", insecure(from))
			s.Redirect(registrytest.Blob, "http://"+to)
			r, err := h.client().Blob(bg, from+"/a:v1", digest, 0)
			if err == nil {
				r.Close()
			}
			if (err == nil) != c.ok || (reached.Load() > 0) != c.ok {
				t.Errorf("the storage is asked %d times; %v", reached.Load(), err)
			}
		})
	}
}

// TestWhoGetsThePassword checks which hosts may get the password that the user has stored for
// registry.example.test.
func TestWhoGetsThePassword(t *testing.T) {
	for name, c := range map[string]struct {
		realm  string
		logins []string // besides the registry's
		ok     bool
	}{
		"the registry":                       {"registry.example.test", nil, true},
		"its domain":                         {"auth.example.test", nil, true},
		"another":                            {"thief.test", nil, false},
		"one that ends alike":                {"evilexample.test", nil, false},
		"one with the registry in its name":  {"registry.example.test.thief.test", nil, false},
		"another at which the user is known": {"sso.test", []string{"sso.test"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			s, h := start(t), newHost(t)
			s.AddImage("a", "v1", layer("x"))
			s.RequireBearer("me", "secret", 9)
			s.SetRealm("http://" + c.realm + "/token")
			url, asked := proxyTo(t, s)
			h.env["HTTP_PROXY"] = url
			h.write("etc/containers/registries.conf", insecure("registry.example.test"))
			logins := auths("registry.example.test", "me", "secret")
			for _, l := range c.logins {
				logins = strings.TrimSuffix(logins, "}}") + "," + strings.TrimPrefix(auths(l, "me", "secret"), `{"auths":{`)
			}
			h.write("home/.docker/config.json", logins)
			_, err := h.client("registry.example.test/a:v1").Manifest(bg, "registry.example.test/a:v1")
			if c.ok && err != nil {
				t.Error(err)
			}
			if !c.ok {
				wantCode(t, err, banger.CodeUnavailable, "password")
			}
			if sent := slices.Contains(asked(), c.realm); sent != c.ok {
				t.Errorf("the realm is asked: %v", sent)
			}
		})
	}
}
