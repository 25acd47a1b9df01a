package network

import (
	"io"
	"os"
	"slices"
	"strings"

	"banger/internal/dns"
)

// Bounds of search domains: what every C library takes (resolv.conf(5)).
const (
	maxSearch     = 6
	maxSearchText = 256 // characters of all, with the spaces between them
	maxResolvText = 64 << 10
)

// SearchDomains returns the domains in which the host looks for a name without a dot, as the file
// at path says. There are none when it cannot be read.
func SearchDomains(path string) []string {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxResolvText))
	if err != nil {
		return nil
	}
	return parseSearch(string(data))
}

// BridgeSearch returns the search domains of a guest on a bridge: that of VMs before those of the
// host, so that no domain of the host hides a VM.
func BridgeSearch(host []string) []string {
	if len(host) == 0 {
		return nil
	}
	return boundSearch(append([]string{dns.Domain}, host...))
}

// parseSearch reads the last line of the file that counts (resolv.conf(5), search and domain).
func parseSearch(text string) []string {
	var found []string
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if len(words) == 0 || words[0] != "search" && words[0] != "domain" {
			continue
		}
		if words = words[1:]; len(words) > 1 && strings.HasPrefix(strings.TrimSpace(line), "domain") {
			words = words[:1]
		}
		found = words
	}
	return boundSearch(found)
}

// boundSearch returns the domains that a guest can take, each once.
func boundSearch(domains []string) []string {
	var out []string
	size := 0
	for _, d := range domains {
		d = strings.TrimSuffix(d, ".")
		if !isDomain(d) || slices.ContainsFunc(out, func(o string) bool { return strings.EqualFold(o, d) }) {
			continue
		}
		if len(out) == maxSearch || size+len(d)+1 > maxSearchText {
			break
		}
		out, size = append(out, d), size+len(d)+1
	}
	return out
}

// isDomain accepts what hosts are called (RFC 1123, 2.1), and underscores, which some use.
func isDomain(d string) bool {
	if len(d) > 253 {
		return false
	}
	for label := range strings.SplitSeq(d, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' ||
			strings.Trim(label, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") != "" {
			return false
		}
	}
	return true
}
