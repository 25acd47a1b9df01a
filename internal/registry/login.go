package registry

import (
	"context"
	"net/http"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"banger"
)

// Host returns a registry's host in the form in which references have it.
func Host(registry string) (string, error) {
	r, err := name.NewRegistry(registry)
	if err != nil {
		return "", banger.Errorf(banger.CodeInvalid, "%.200q is not the host of a registry", registry).
			WithHint("write it as HOST or HOST:PORT")
	}
	return r.RegistryStr(), nil
}

// CheckLogin returns an error unless the registry at a host, which Host has returned, takes a login.
func (c *Client) CheckLogin(ctx context.Context, host string, l banger.RegistryLogin) error {
	reg, err := name.NewRegistry(host)
	if err != nil {
		return err
	}
	r := reference{repo: reg.Repo("any"), login: true}
	list, err := c.endpoints(r)
	if err != nil {
		return err
	}
	status, err := c.tryLogin(ctx, list[len(list)-1], l)
	if err != nil {
		status = statusIn(err)
	}
	switch {
	case err == nil && status == http.StatusOK:
		return nil
	case refuses(status):
		return banger.Errorf(banger.CodeDenied, "registry %s refuses this login", host).
			WithHint("check user and password; many registries want a token instead of the password")
	case status == http.StatusNotFound:
		return banger.Errorf(banger.CodeUnavailable, "%s is no registry: it does not know /v2/", host).
			WithHint("check the name")
	case err == nil:
		err = &statusError{status: status}
	}
	return c.wrap(ctx, r, err)
}

// tryLogin logs in at a place and returns the status of the answer.
func (c *Client) tryLogin(ctx context.Context, e endpoint, l banger.RegistryLogin) (status int, err error) {
	base, err := c.base(e)
	if err != nil {
		return 0, err
	}
	rt, err := transport.NewWithContext(ctx, e.registry, authenticator(l), base, nil)
	if err != nil {
		return 0, loginError(ctx, err)
	}
	req, err := http.NewRequestWithContext(ctx, "GET", "https://"+e.registry.RegistryStr()+"/v2/", nil)
	if err != nil {
		return 0, err
	}
	req.Header.Set("User-Agent", c.opts.UserAgent)
	res, err := (&http.Client{Transport: rt}).Do(req)
	if err != nil {
		return 0, err
	}
	return res.StatusCode, res.Body.Close()
}
