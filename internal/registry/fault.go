package registry

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"
)

// fault is why a host could not be asked, in our own words.
type fault struct {
	text    string
	hint    string
	final   bool   // another attempt at once would meet it again
	noReach string // the host that could not be reached; "" if the fault is another one
}

func (f *fault) Error() string   { return f.text }
func (f *fault) Permanent() bool { return f.final }

// refuse returns a final fault: something that we do not do for a registry.
func refuse(format string, args ...any) *fault {
	return &fault{text: fmt.Sprintf(format, args...), final: true}
}

// weak is a fault of a request by TLS where the registry may be asked without TLS too. The fault of that request, if
// there is one, says more. It does not unwrap to the fault, so that the other one is found first.
type weak struct{ fault *fault }

func (w weak) Error() string { return w.fault.text }

// attempt is a request that has failed.
type attempt struct {
	req     *http.Request
	proxy   *url.URL // nil: none
	at      stage
	silence time.Duration // how long the host was silent; 0: it was not
	plain   bool          // the registry may be asked without TLS
	host    string        // where to put a certificate for it: host or host:port as in the reference
}

// address returns host:port of what did not do its part, with a word about what it is.
func (a attempt) address() string {
	if a.byProxy() {
		return "the proxy " + a.proxy.Host
	}
	return hostPort(a.req.URL)
}

// byProxy reports whether the proxy, and not the registry, has failed.
func (a attempt) byProxy() bool {
	return a.proxy != nil && (a.at < handshake || a.req.URL.Scheme == "http")
}

// hostPort returns host:port of a URL.
func hostPort(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return net.JoinHostPort(u.Hostname(), port)
}

// advice returns a hint, or what to do about the proxy if that is at fault.
func (a attempt) advice(hint string) string {
	if a.byProxy() {
		return fmt.Sprintf("%s of your environment names this proxy; correct it, or except the registry by NO_PROXY",
			proxyVariable(a.req.URL.Scheme))
	}
	return hint
}

func proxyVariable(scheme string) string { return strings.ToUpper(scheme) + "_PROXY" }

// seconds formats a time for a person.
func seconds(d time.Duration) string {
	return strings.TrimSuffix(fmt.Sprintf("%.1f", d.Seconds()), ".0") + " s"
}

// explain returns the fault that err, from package net/http, means for an attempt. It returns faults of ours unchanged.
func (a attempt) explain(err error) error {
	if f, ok := errors.AsType[*fault](err); ok {
		return f
	}
	f, lesser := a.unreached(err), a.at >= connected
	if f == nil {
		f, lesser = a.certificate(err)
	}
	if f == nil {
		f, lesser = &fault{text: a.address() + " closes the connection without an answer",
			hint: a.advice("try again later")}, true
	} else {
		f.final = true
	}
	f.noReach = a.req.URL.Host
	if lesser && a.plain && a.req.URL.Scheme == "https" {
		return weak{f}
	}
	return f
}

// unreached returns the fault of a host that is not there, not reached or silent, or nil.
func (a attempt) unreached(err error) *fault {
	dns, unknown := errors.AsType[*net.DNSError](err)
	switch {
	case a.silence > 0 && a.at == connecting:
		return &fault{text: fmt.Sprintf("%s does not answer within %s", a.address(), seconds(a.silence)),
			hint: a.advice("check the name, the network and its firewalls")}
	case a.silence > 0:
		return &fault{text: fmt.Sprintf("%s takes connections, but does not answer within %s", a.address(),
			seconds(a.silence)), hint: a.advice("try again later: it may be overloaded")}
	case unknown && dns.IsNotFound:
		return &fault{text: "there is no host " + strings.TrimSuffix(dns.Name, "."),
			hint: a.advice("check the spelling of its name")}
	case unknown:
		return &fault{text: "no name server says where " + strings.TrimSuffix(dns.Name, ".") + " is",
			hint: a.advice("check this host's network and /etc/resolv.conf")}
	case errors.Is(err, syscall.ECONNREFUSED):
		return &fault{text: "nothing listens at " + a.address() + ": connection refused",
			hint: a.advice("check name and port, and that the registry runs")}
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETDOWN):
		return &fault{text: "no route leads to " + a.address(), hint: a.advice("check this host's network")}
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return &fault{text: "this host forbids connections to " + a.address(),
			hint: a.advice("check this host's firewall")}
	}
	return nil
}

// certificate returns the fault of a host that does not speak TLS as it should, or nil. lesser reports whether an
// answer without TLS says more.
func (a attempt) certificate(err error) (f *fault, lesser bool) {
	_, noTLS := errors.AsType[tls.RecordHeaderError](err)
	if noTLS || errors.Is(err, http.ErrSchemeMismatch) {
		return &fault{text: hostPort(a.req.URL) + " answers without TLS",
			hint: insecureAdvice(a.req.URL.Host)}, true
	}
	at := hostPort(a.req.URL)
	if names, ok := errors.AsType[x509.HostnameError](err); ok {
		return &fault{text: fmt.Sprintf("the certificate of %s is for other names than %s", at, names.Host),
			hint: "use a name that its certificate has"}, false
	}
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok && invalid.Reason == x509.Expired {
		return &fault{text: "the certificate of " + at + " is not valid at this time",
			hint: "check this host's clock, or have the certificate renewed"}, false
	}
	_, invalid := errors.AsType[x509.CertificateInvalidError](err)
	_, verify := errors.AsType[*tls.CertificateVerificationError](err)
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok || invalid || verify {
		return &fault{text: "no authority that this host knows vouches for the certificate of " + at,
			hint: fmt.Sprintf("put the authority's certificate into /etc/docker/certs.d/%s/ca.crt", a.host)}, false
	}
	if a.at == handshake {
		return &fault{text: at + " and we agree on no TLS connection",
			hint: "check that it is a registry, and what TLS it speaks"}, true
	}
	return nil, false
}

// insecureAdvice says how to allow requests without TLS to a registry.
func insecureAdvice(host string) string {
	return fmt.Sprintf("if it may be asked without, say so in /etc/containers/registries.conf: "+
		"[[registry]], location = %q, insecure = true", host)
}

// proxyRefusal returns the fault for a proxy's answer to a request for a connection, or nil if it connects.
func proxyRefusal(proxy *url.URL, to string, res *http.Response) error {
	if res.StatusCode == http.StatusOK {
		return nil
	}
	f := &fault{text: fmt.Sprintf("the proxy %s refuses to connect us to %s: it answers %d %s", proxy.Host, to,
		res.StatusCode, http.StatusText(res.StatusCode)), final: true,
		hint: "ask whoever runs the proxy, or except the registry by NO_PROXY"}
	if res.StatusCode == http.StatusProxyAuthRequired {
		f.hint = "HTTPS_PROXY may have a login: http://USER:PASSWORD@" + proxy.Host
	}
	return f
}

// broken reports whether a connection has ended too early.
func broken(err error) bool {
	_, op := errors.AsType[*net.OpError](err)
	return op || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) ||
		errors.Is(err, syscall.EPIPE) || errors.Is(err, net.ErrClosed)
}
