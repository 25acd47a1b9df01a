package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"os"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// tlsserver FILE serves HTTPS on the host's loopback, at the address that a VM knows as 10.0.2.2.
// It writes the authority's certificate to FILE and sets $TLS to the port.
func cmdTLSServer(ts *testscript.TestScript, neg bool, args []string) {
	refuse(ts, neg, len(args) != 1, "tlsserver FILE")
	authority := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "an authority of the test"},
		NotBefore: time.Now().Add(-24 * time.Hour),
		NotAfter:  time.Now().Add(24 * time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	server := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "a server"},
		NotBefore: authority.NotBefore, NotAfter: authority.NotAfter,
		IPAddresses: []net.IP{net.IPv4(10, 0, 2, 2)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	key := func() *ecdsa.PrivateKey {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		ts.Check(err)
		return k
	}
	caKey, serverKey := key(), key()
	ca, err := x509.CreateCertificate(rand.Reader, authority, authority, &caKey.PublicKey, caKey)
	ts.Check(err)
	leaf, err := x509.CreateCertificate(rand.Reader, server, authority, &serverKey.PublicKey, caKey)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca}), 0o644))
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, "hello over TLS")
	}))
	s.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{leaf}, PrivateKey: serverKey}}}
	s.StartTLS()
	ts.Defer(s.Close)
	_, port, _ := net.SplitHostPort(s.Listener.Addr().String())
	ts.Setenv("TLS", port)
}

// httpproxy [ORIGIN] starts a proxy on the host's loopback and sets $PROXY to its URL and $PROXYPORT to its port.
// Every name leads it to ORIGIN, HOST:PORT, or to a server of its own. The proxy marks each answer that it passes on.
func cmdHTTPProxy(ts *testscript.TestScript, neg bool, args []string) {
	refuse(ts, neg, len(args) > 1, "httpproxy [ORIGIN]")
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, "origin of", r.Host)
	}))
	ts.Defer(server.Close)
	origin := server.Listener.Addr().String()
	if len(args) == 1 {
		origin = args[0]
	}
	forward := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Host = origin
			r.Out.Host = r.In.Host
		},
		ModifyResponse: func(r *http.Response) error { r.Header.Set("Via", "1.1 the-proxy"); return nil },
	}
	s := httptest.NewServer(forward)
	ts.Defer(s.Close)
	_, port, _ := net.SplitHostPort(s.Listener.Addr().String())
	ts.Setenv("PROXY", s.URL)
	ts.Setenv("PROXYPORT", port)
}
