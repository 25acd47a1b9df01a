package banger

import (
	"context"
	"slices"
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
