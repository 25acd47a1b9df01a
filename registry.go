package banger

import (
	"context"
	"slices"
	"strings"
)

// RegistryAccess is what a client lets the daemon use at registries for one request: logins and proxies. It travels
// with the request, and is neither stored nor logged.
type RegistryAccess struct {
	Logins []RegistryLogin `json:"logins,omitempty"`
	// Known are the other hosts at which the user has logged in. A registry may have its password sent to them.
	Known []string `json:"known,omitempty"`

	HTTPProxy  Secret `json:"http_proxy,omitempty"` // its address may contain a password
	HTTPSProxy Secret `json:"https_proxy,omitempty"`
	NoProxy    string `json:"no_proxy,omitempty"`
}

// RegistryLogin is a user's login for some repositories of a registry.
type RegistryLogin struct {
	Places        []string `json:"places"` // HOST[:PORT]/REPOSITORY
	Username      string   `json:"username,omitempty"`
	Password      Secret   `json:"password,omitempty"`
	IdentityToken Secret   `json:"identity_token,omitempty"` // buys tokens at the registry's token server
	RegistryToken Secret   `json:"registry_token,omitempty"` // is sent to the registry as it is
}

// Secret is a text that package fmt shows as HiddenValue.
type Secret string

// String returns HiddenValue.
func (s Secret) String() string { return HiddenValue }

// GoString returns HiddenValue.
func (s Secret) GoString() string { return HiddenValue }

// Login returns the login for a place, HOST[:PORT]/REPOSITORY, if there is one.
func (a RegistryAccess) Login(place string) (RegistryLogin, bool) {
	for _, l := range a.Logins {
		if slices.Contains(l.Places, place) {
			return l, true
		}
	}
	return RegistryLogin{}, false
}

// proxyNames are the variables that name proxies. Programs read them in upper and in lower case.
var proxyNames = []string{"HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "ALL_PROXY", "NO_PROXY"}

// Environ returns a program's environment: that of this process, with the proxies of a instead of its own.
func (a RegistryAccess) Environ(own []string) []string {
	env := slices.DeleteFunc(slices.Clone(own), func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return slices.Contains(proxyNames, strings.ToUpper(name))
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

type accessKey struct{}

// WithRegistryAccess returns a context in which work for a client may use a at registries.
func WithRegistryAccess(ctx context.Context, a RegistryAccess) context.Context {
	return context.WithValue(ctx, accessKey{}, a)
}

// RegistryAccessOf returns the access that ctx carries. Without one, registries are asked anonymously and directly.
func RegistryAccessOf(ctx context.Context) RegistryAccess {
	a, _ := ctx.Value(accessKey{}).(RegistryAccess)
	return a
}
