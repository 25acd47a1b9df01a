package banger

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"time"
)

// MaxCA is the limit for the certificates of one VM, in bytes of PEM.
const MaxCA = 256 << 10

// CACertificates returns the certificates of authorities in PEM text, without the explanatory text that may stand
// beside them (RFC 7468, 5.2). It returns an error if the text has no certificate, or one that has expired or does
// not belong to an authority.
func CACertificates(text []byte) ([]byte, error) {
	hint := "give certificates of authorities in PEM: -----BEGIN CERTIFICATE-----"
	if len(text) > MaxCA {
		return nil, Errorf(CodeInvalid, "the certificates are longer than %s", FormatSize(MaxCA)).
			WithHint("give only those that the VM needs")
	}
	var out bytes.Buffer
	for rest := text; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, Errorf(CodeInvalid, "there is a %.40q among the certificates", block.Type).WithHint("%s", hint)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		switch {
		case err != nil:
			return nil, Errorf(CodeInvalid, "a certificate cannot be read: %w", err).WithHint("%s", hint)
		case !c.IsCA && c.BasicConstraintsValid:
			return nil, Errorf(CodeInvalid, "the certificate of %.100q is not that of an authority", c.Subject).
				WithHint("give that of its issuer, %.100q", c.Issuer)
		case time.Now().After(c.NotAfter):
			return nil, Errorf(CodeInvalid, "the certificate of %.100q has expired on %s", c.Subject,
				c.NotAfter.Format(time.DateOnly)).WithHint("ask its authority for the new one")
		}
		if err := pem.Encode(&out, &pem.Block{Type: block.Type, Bytes: block.Bytes}); err != nil {
			return nil, err
		}
	}
	if out.Len() == 0 {
		return nil, Errorf(CodeInvalid, "there is no certificate").WithHint("%s", hint)
	}
	return out.Bytes(), nil
}
