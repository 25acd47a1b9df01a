// Package account is what this process's user is at registries: the logins and proxies that a request to the daemon may
// use there, and the commands login and logout.
//
// It must not know any other command, nor how the daemon uses what it gets.
package account

import (
	"cmp"
	"context"
	"os"
	"strings"

	"banger"
	"banger/internal/api/client"
	"banger/internal/credential"
	"banger/internal/image/source"
	"banger/internal/registry"
)

// WithProxies returns a context whose requests let the daemon use this user's proxies.
func WithProxies(ctx context.Context) context.Context {
	return banger.WithRegistryAccess(ctx, proxies())
}

// With returns a context whose requests let the daemon use this user's proxies, and the logins for the registry and the
// mirrors of a reference.
func With(ctx context.Context, ref string) (context.Context, error) {
	ctx, failed := WithKnown(ctx, ref)
	return ctx, failed[ref]
}

// WithKnown is With for several references, of which some may have no usable login. It returns the reasons by
// reference.
func WithKnown(ctx context.Context, refs ...string) (_ context.Context, failed map[string]error) {
	found := collection{
		store:  credential.New(os.Getenv),
		client: newClient(banger.RegistryAccess{}),
		access: proxies(),
		seen:   map[string]bool{},
		at:     map[credential.Login]int{},
	}
	defer found.client.Close()
	failed = map[string]error{}
	for _, ref := range refs {
		if err := found.add(ctx, ref); err != nil {
			failed[ref] = err
		}
	}
	if len(found.access.Logins) > 0 {
		found.access.Known, _ = found.store.Hosts() // a file that cannot be read is among the failures
	}
	return banger.WithRegistryAccess(ctx, found.access), failed
}

// WithSpec returns a context for the creation of a VM. It has logins only if the image may have to be fetched: a
// credential helper may ask its user for a password.
func WithSpec(ctx context.Context, client *client.Client, s banger.Spec) (context.Context, error) {
	if s.Pull == banger.PullNever {
		return WithProxies(ctx), nil
	}
	if s.Pull != banger.PullAlways {
		img, err := client.Image(ctx, s.Image)
		if err == nil && (s.Platform == "" || s.Platform == img.Platform) {
			return WithProxies(ctx), nil
		}
	}
	return With(ctx, s.Image)
}

// proxies returns an access with the proxies of this process's environment alone.
func proxies() banger.RegistryAccess {
	either := func(name string) string { return cmp.Or(os.Getenv(name), os.Getenv(strings.ToLower(name))) }
	return banger.RegistryAccess{
		HTTPProxy:  banger.Secret(either("HTTP_PROXY")),
		HTTPSProxy: banger.Secret(either("HTTPS_PROXY")),
		NoProxy:    either("NO_PROXY"),
	}
}

// newClient returns a client for this user's own requests to registries.
func newClient(access banger.RegistryAccess) *registry.Client {
	return registry.New(registry.Options{UserAgent: "banger/" + banger.Version}, access)
}

// collection is an access in the making.
type collection struct {
	store  *credential.Store
	client *registry.Client // knows the mirrors
	access banger.RegistryAccess
	seen   map[string]bool          // places
	at     map[credential.Login]int // where a login is in access.Logins
}

// add adds the logins for the registry and the mirrors of a reference. If some cannot be found, it adds the others.
func (c *collection) add(ctx context.Context, ref string) error {
	full, err := source.Normalize(ref)
	if err != nil || !source.IsRemote(full) {
		return nil // the daemon says what is wrong with it
	}
	places, err := c.client.Places(full)
	for _, place := range places {
		if c.seen[place] {
			continue
		}
		host, repository, _ := strings.Cut(place, "/")
		l, ok, ferr := c.store.Find(ctx, host, repository)
		if ferr != nil {
			err = cmp.Or(err, ferr)
			continue
		}
		c.seen[place] = true
		if ok {
			c.allow(place, l)
		}
	}
	return err
}

// allow notes that a login is for a place.
func (c *collection) allow(place string, l credential.Login) {
	i, there := c.at[l]
	if !there {
		i = len(c.access.Logins)
		c.at[l] = i
		c.access.Logins = append(c.access.Logins, loginOf(l))
	}
	c.access.Logins[i].Places = append(c.access.Logins[i].Places, place)
}

// loginOf returns a login as the daemon and registries get it.
func loginOf(l credential.Login) banger.RegistryLogin {
	return banger.RegistryLogin{
		Username:      l.Username,
		Password:      banger.Secret(l.Password),
		IdentityToken: banger.Secret(l.IdentityToken),
		RegistryToken: banger.Secret(l.RegistryToken),
	}
}
