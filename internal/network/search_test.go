package network

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestSearchDomains reads resolv.conf(5) as the C library does, within bounds, and takes only names
// that a host can have.
func TestSearchDomains(t *testing.T) {
	long := strings.Repeat("l", 63)
	for name, c := range map[string]struct{ text, want string }{
		"none":              {"nameserver 192.0.2.1\n", ""},
		"one":               {"search corp.example\n", "corp.example"},
		"several":           {"nameserver 192.0.2.1\nsearch a.example\tb.example.  c\n", "a.example b.example c"},
		"the last counts":   {"search a.example\nsearch b.example\n", "b.example"},
		"domain":            {"domain a.example b.example\n", "a.example"},
		"domain, search":    {"domain a.example\nsearch b.example\n", "b.example"},
		"an empty one":      {"search a.example\nsearch\n", ""},
		"the root":          {"search .\n", ""},
		"a comment":         {"#search a.example\n;search b.example\n", ""},
		"twice":             {"search a.example A.example. b.example\n", "a.example b.example"},
		"seven":             {"search a b c d e f g\n", "a b c d e f"},
		"no end of line":    {"search a.example", "a.example"},
		"underscore, digit": {"search _x.1a-b.example", "_x.1a-b.example"},
		"256 characters": {"search " + strings.Repeat(long+".a ", 1) + strings.Repeat("b"+long[1:]+".a ",
			1) + "c" + long[1:] + ".a d" + long[1:] + ".a", long + ".a b" + long[1:] + ".a c" + long[1:] + ".a"},
		"what is no name": {"search a..b -a b- a;b $(x) \u202e \x1b[2J a/b *.a " + long + "l.example " +
			strings.Repeat("a.", 127) + "a ok.example", "ok.example"},
	} {
		file := filepath.Join(t.TempDir(), "resolv.conf")
		if err := os.WriteFile(file, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(SearchDomains(file), " "); got != c.want {
			t.Errorf("%s: %q, not %q", name, got, c.want)
		}
	}
	if got := SearchDomains(t.TempDir() + "/none"); got != nil {
		t.Errorf("no file says %q", got)
	}
}

func TestSearchDomainsOfABridge(t *testing.T) {
	for _, c := range []struct{ host, want []string }{
		{nil, nil},
		{[]string{"corp.example", "vm"}, []string{"vm", "corp.example"}},
		{[]string{"a", "b", "c", "d", "e", "f"}, []string{"vm", "a", "b", "c", "d", "e"}},
	} {
		if got := BridgeSearch(c.host); !slices.Equal(got, c.want) {
			t.Errorf("%q become %q, not %q", c.host, got, c.want)
		}
	}
}
