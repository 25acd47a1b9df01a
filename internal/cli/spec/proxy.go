package spec

import (
	"net"
	"net/netip"
	"net/url"
	"os"
	"strconv"
	"strings"

	"banger"
	"banger/internal/notation"
)

// FromEnvironment is the proxy that takes the variables of this process.
const FromEnvironment = "env"

// proxyVariables are the variables that programs read. Programs also read them in capitals.
var proxyVariables = []string{"http_proxy", "https_proxy", "all_proxy"}

// proxy returns the guest's variables for a proxy, and the rules that the guest needs to reach the proxy. value is
// the proxy's URL, or FromEnvironment for the caller's own variables. If the proxy is on this host's loopback
// address, the guest gets the address of its gateway instead.
func proxy(value, network string, getenv func(string) string) (env []string, rules []banger.Rule, err error) {
	none := ""
	values := map[string]string{}
	for _, name := range proxyVariables {
		values[name] = value
		if value == FromEnvironment {
			values[name] = either(getenv, name)
			none = either(getenv, "no_proxy")
		}
	}
	if value != FromEnvironment {
		delete(values, "all_proxy")
	}
	seen := map[string]bool{}
	for _, name := range proxyVariables {
		if values[name] == "" {
			continue
		}
		inside, rule, err := proxyInside(values[name], network)
		if err != nil {
			return nil, nil, err
		}
		env = append(env, name+"="+inside, strings.ToUpper(name)+"="+inside)
		if !seen[rule.String()] {
			seen[rule.String()] = true
			rules = append(rules, rule)
		}
	}
	if len(env) == 0 {
		return nil, nil, banger.Errorf(banger.CodeInvalid, "--proxy: no proxy is set here").
			WithHint("set HTTPS_PROXY, or give its URL: --proxy=http://proxy:3128")
	}
	if none != "" {
		env = append(env, "no_proxy="+none, "NO_PROXY="+none)
	}
	return env, rules, nil
}

func either(getenv func(string) string, name string) string {
	if v := getenv(name); v != "" {
		return v
	}
	return getenv(strings.ToUpper(name))
}

// proxyPorts maps each kind of proxy to the port of a URL that names none.
var proxyPorts = map[string]uint16{
	"http":    80,
	"https":   443,
	"socks4":  1080,
	"socks4a": 1080,
	"socks5":  1080,
	"socks5h": 1080,
}

// proxyInside returns a proxy's URL as the guest must use it, and the rule that allows it.
func proxyInside(text, network string) (string, banger.Rule, error) {
	var rule banger.Rule
	full := text
	if !strings.Contains(full, "://") {
		full = "http://" + full
	}
	u, err := url.Parse(full)
	if err != nil || u.Hostname() == "" || proxyPorts[u.Scheme] == 0 {
		return "", rule, banger.Errorf(banger.CodeInvalid, "--proxy: it is not the URL of a proxy").
			WithHint("for example: http://proxy.example:3128 or socks5h://10.1.2.3")
	}
	port := proxyPorts[u.Scheme]
	if u.Port() != "" {
		n, err := strconv.ParseUint(u.Port(), 10, 16)
		if err != nil || n == 0 {
			return "", rule, banger.Errorf(banger.CodeInvalid, "--proxy: %q is not a port", u.Port())
		}
		port = uint16(n)
	}
	to := strings.ToLower(u.Hostname())
	addr, err := netip.ParseAddr(to)
	loopback := to == "localhost" || err == nil && addr.Unmap().IsLoopback()
	switch {
	case loopback && network != banger.NetworkUser:
		return "", rule,
			banger.Errorf(banger.CodeInvalid,
				"--proxy: a proxy on this host's %s is out of reach for a VM of network %s", to, network).
				WithHint("use --network user, or have the proxy listen on the network's gateway")
	case err == nil && !addr.Unmap().Is4() && !loopback:
		return "", rule, banger.Errorf(banger.CodeInvalid,
			"--proxy: %s is an IPv6 address, which guests do not have", to).
			WithHint("give its name or IPv4 address")
	case loopback:
		to = banger.ToHost
		u.Host = net.JoinHostPort(banger.UserGateway, strconv.Itoa(int(port)))
	}
	rule, err = notation.ParseRule(banger.Allow + " " + to + " tcp:" + strconv.Itoa(int(port)))
	return u.String(), rule, err
}

// readCA joins the certificates in files.
func readCA(files []string) (string, error) {
	var all []byte
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			return "", banger.Errorf(banger.CodeInvalid, "--ca: %w", err)
		}
		certificates, err := banger.CACertificates(text)
		if err != nil {
			return "", banger.Errorf(banger.CodeInvalid, "--ca %s: %w", name, err)
		}
		all = append(all, certificates...)
	}
	return string(all), nil
}
