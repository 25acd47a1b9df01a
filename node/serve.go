package main

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	authorization "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// certificates returns how the kubelet's API identifies itself, and which clients it takes: those with a certificate
// of the authorities in --client-ca-file, or else of the cluster's.
func (o options) certificates(ctx context.Context, cluster kubernetes.Interface) (*tls.Config, error) {
	var pem []byte
	var err error
	if o.clientCA != "" {
		if pem, err = os.ReadFile(o.clientCA); err != nil {
			return nil, fmt.Errorf("--client-ca-file cannot be read: %w", err)
		}
	} else {
		m, err := cluster.CoreV1().ConfigMaps("kube-system").Get(ctx, "extension-apiserver-authentication",
			metav1.GetOptions{})
		if err != nil {
			return nil, fmt.Errorf("the cluster does not say which clients a node takes; give --client-ca-file: %w", err)
		}
		pem = []byte(m.Data["client-ca-file"])
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, errors.New("there is no certificate of an authority of clients; give --client-ca-file")
	}
	var own tls.Certificate
	if o.cert != "" {
		own, err = tls.LoadX509KeyPair(o.cert, o.key)
	} else {
		own, err = selfSigned(o.name, net.ParseIP(o.address))
	}
	if err != nil {
		return nil, fmt.Errorf("the certificate of the kubelet's API cannot be used: %w", err)
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{own}, ClientCAs: pool,
		ClientAuth: tls.RequireAndVerifyClientCert}, nil
}

// selfSigned returns a certificate that lives as long as the process.
func selfSigned(name string, ip net.IP) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return tls.Certificate{}, err
	}
	c := &x509.Certificate{SerialNumber: serial, Subject: pkix.Name{CommonName: "system:node:" + name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(1, 0, 0), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, DNSNames: []string{name}, IPAddresses: []net.IP{ip}}
	raw, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	return tls.Certificate{Certificate: [][]byte{raw}, PrivateKey: key}, err
}

// guarded lets only clients in to whom the cluster gives the right of the request: nodes/proxy, nodes/metrics or
// nodes/stats, as the kubelet asks for them.
func guarded(cluster kubernetes.Interface, name string, routes http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who := r.TLS.VerifiedChains[0][0].Subject
		verb := map[string]string{http.MethodGet: "get", http.MethodPost: "create"}[r.Method]
		part := "proxy"
		switch {
		case strings.HasPrefix(r.URL.Path, "/stats"):
			part = "stats"
		case strings.HasPrefix(r.URL.Path, "/metrics"):
			part = "metrics"
		}
		ask := &authorization.SubjectAccessReview{Spec: authorization.SubjectAccessReviewSpec{User: who.CommonName,
			Groups: append(who.Organization, "system:authenticated"), ResourceAttributes: &authorization.ResourceAttributes{
				Verb: verb, Version: "v1", Resource: "nodes", Subresource: part, Name: name}}}
		got, err := cluster.AuthorizationV1().SubjectAccessReviews().Create(r.Context(), ask, metav1.CreateOptions{})
		switch {
		case err != nil:
			http.Error(w, "the API server does not say who may ask this", http.StatusServiceUnavailable)
		case verb == "" || !got.Status.Allowed:
			http.Error(w, fmt.Sprintf("%q may not %s nodes/%s of %s", who.CommonName, verb, part, name), http.StatusForbidden)
		default:
			routes.ServeHTTP(w, r)
		}
	})
}

// hostMemory returns how much memory the host has, and how much of it is free, in bytes (proc_meminfo(5)). Both are 0
// if the kernel does not say it.
func hostMemory() (available, total int64) {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return 0, 0
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		words := strings.Fields(lines.Text())
		if len(words) < 2 {
			continue
		}
		n, _ := strconv.ParseInt(words[1], 10, 64)
		switch words[0] {
		case "MemTotal:":
			total = n << 10
		case "MemAvailable:":
			available = n << 10
		}
	}
	return available, total
}
