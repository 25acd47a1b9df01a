package banger

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"
)

// certificate returns a self-signed certificate in PEM that expires at until.
func certificate(t *testing.T, authority bool, until time.Time) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "one"},
		NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: until, IsCA: authority, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

func TestCertificatesAreThoseOfAuthorities(t *testing.T) {
	later := time.Now().Add(time.Hour)
	one, two := certificate(t, true, later), certificate(t, true, later)
	for name, c := range map[string]struct{ text, want, wrong string }{
		"one":             {one, one, ""},
		"two, with notes": {"# mine\n" + one + "\nand his:\n" + two, one + two, ""},
		"a server's":      {certificate(t, false, later), "", "not that of an authority"},
		"an expired one":  {certificate(t, true, time.Now().Add(-time.Hour)), "", "has expired"},
		"a key": {one + "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "",
			`a "PRIVATE KEY" among`},
		"no certificate": {"hello", "", "there is no certificate"},
		"a broken one":   {"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "", "cannot be read"},
		"too much":       {strings.Repeat(" ", MaxCA+1), "", "longer than"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := CACertificates([]byte(c.text))
			if c.wrong != "" {
				if CodeOf(err) != CodeInvalid || !strings.Contains(fmt.Sprint(err), c.wrong) {
					t.Errorf("it is %v", err)
				}
			} else if err != nil || !bytes.Equal(got, []byte(c.want)) {
				t.Errorf("%s %v", got, err)
			}
		})
	}
}
