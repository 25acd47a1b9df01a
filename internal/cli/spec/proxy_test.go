package spec

import (
	"fmt"
	"strings"
	"testing"

	"banger"
)

func TestProxies(t *testing.T) {
	for name, c := range map[string]struct {
		value   string
		network string
		env     map[string]string
		want    string // the variables in lower case, and the rules
		wrong   string // part of the error
	}{
		"a URL": {"http://proxy.example:3128", "user", nil,
			"http_proxy=http://proxy.example:3128 https_proxy=http://proxy.example:3128 | " +
				"allow proxy.example tcp:3128", ""},
		"the shell's own": {"env", "user", map[string]string{"HTTPS_PROXY": "http://10.1.2.3:8080", "no_proxy": "lan"},
			"https_proxy=http://10.1.2.3:8080 no_proxy=lan | allow 10.1.2.3 tcp:8080", ""},
		"small letters win": {"env", "user", map[string]string{"http_proxy": "http://a.example",
			"HTTP_PROXY": "http://b.example"}, "http_proxy=http://a.example | allow a.example tcp:80", ""},
		"without a scheme": {"proxy.example:3128", "bridge", nil,
			"http_proxy=http://proxy.example:3128 https_proxy=http://proxy.example:3128 | " +
				"allow proxy.example tcp:3128", ""},
		"on this host": {"http://me:pw@localhost:3128", "user", nil,
			"http_proxy=http://me:pw@10.0.2.2:3128 https_proxy=http://me:pw@10.0.2.2:3128 | allow host tcp:3128", ""},
		"at 127.0.0.1": {"socks5h://127.0.0.1", "user", nil,
			"http_proxy=socks5h://10.0.2.2:1080 https_proxy=socks5h://10.0.2.2:1080 | allow host tcp:1080", ""},
		"two proxies": {"env", "user", map[string]string{"HTTP_PROXY": "http://a.example:1",
			"ALL_PROXY": "socks5://b.example:2"},
			"http_proxy=http://a.example:1 all_proxy=socks5://b.example:2 | " +
				"allow a.example tcp:1, allow b.example tcp:2", ""},
		"loopback and a bridge": {"http://[::1]:3128", "lab", nil, "", "out of reach for a VM of network lab"},
		"none is set":           {"env", "user", nil, "", "no proxy is set here"},
		"another kind":          {"ftp://a.example", "user", nil, "", "not the URL of a proxy"},
		"no host":               {"http://:80", "user", nil, "", "not the URL of a proxy"},
		"no URL":                {"http://a b", "user", nil, "", "not the URL of a proxy"},
		"port 0":                {"http://a.example:0", "user", nil, "", `"0" is not a port`},
		"IPv6":                  {"http://[2001:db8::1]:80", "user", nil, "", "IPv6 address, which guests do not have"},
	} {
		t.Run(name, func(t *testing.T) {
			env, rules, err := proxy(c.value, c.network, func(k string) string { return c.env[k] })
			if c.wrong != "" {
				if banger.CodeOf(err) != banger.CodeInvalid || !strings.Contains(fmt.Sprint(err), c.wrong) {
					t.Errorf("it is %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var small, opened []string
			for i, kv := range env {
				if i%2 == 0 {
					small = append(small, kv)
				} else if key, value, _ := strings.Cut(env[i-1], "="); kv != strings.ToUpper(key)+"="+value {
					t.Errorf("%q stands beside %q", kv, env[i-1])
				}
			}
			for _, r := range rules {
				opened = append(opened, r.String())
			}
			if got := strings.Join(small, " ") + " | " + strings.Join(opened, ", "); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}
