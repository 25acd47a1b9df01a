// Package proxy gives the programs that banger runs for a client the client's proxies. It must not know what the
// programs do.
package proxy

import (
	"slices"
	"strings"

	"banger"
)

// names are the variables that name proxies. Programs read them in upper and in lower case.
var names = []string{"HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "ALL_PROXY", "NO_PROXY"}

// Environ returns a program's environment: own, with the proxies of a instead of its own.
func Environ(a banger.RegistryAccess, own []string) []string {
	env := slices.DeleteFunc(slices.Clone(own), func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return slices.Contains(names, strings.ToUpper(name))
	})
	for name, value := range map[string]string{
		"http_proxy":  string(a.HTTPProxy),
		"https_proxy": string(a.HTTPSProxy),
		"no_proxy":    a.NoProxy,
	} {
		if value != "" {
			env = append(env, name+"="+value, strings.ToUpper(name)+"="+value)
		}
	}
	return env
}
