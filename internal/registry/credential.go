package registry

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/docker/docker-credential-helpers/client"
	"github.com/docker/docker-credential-helpers/credentials"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"

	"banger"
)

// authFile is docker's config.json, or an auth.json (containers-auth.json(5)).
type authFile struct {
	Auths   map[string]authn.AuthConfig `json:"auths"`
	Helpers map[string]string           `json:"credHelpers"`
	Store   string                      `json:"credsStore"`
}

// credential returns the login for a repository that docker login or podman login stored, or an
// anonymous one.
func (c *Client) credential(host, repository string) (authn.Authenticator, error) {
	for _, path := range c.authFiles() {
		data, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		var f authFile
		if err == nil && len(data) > 0 {
			err = json.Unmarshal(data, &f)
		}
		if err != nil {
			return nil, banger.Errorf(banger.CodeInvalid, "cannot read the credentials in %s: %w", path, err)
		}
		if auth, err := f.find(host, repository); auth != nil || err != nil {
			return auth, err
		}
	}
	return authn.Anonymous, nil
}

func (c *Client) authFiles() []string {
	env := c.opts.Getenv
	var list []string
	if v := env("REGISTRY_AUTH_FILE"); v != "" {
		list = append(list, v)
	}
	docker := env("DOCKER_CONFIG")
	if docker == "" && env("HOME") != "" {
		docker = filepath.Join(env("HOME"), ".docker")
	}
	if docker != "" {
		list = append(list, filepath.Join(docker, "config.json"))
	}
	if v := env("XDG_RUNTIME_DIR"); v != "" {
		list = append(list, filepath.Join(v, "containers/auth.json"))
	}
	list = append(list, fmt.Sprintf("/run/containers/%d/auth.json", os.Getuid()))
	if v := env("HOME"); v != "" {
		list = append(list, filepath.Join(v, ".config/containers/auth.json"))
	}
	return list
}

// find returns the login of the longest prefix of host/repository that has an entry.
func (f *authFile) find(host, repository string) (authn.Authenticator, error) {
	hosts := []string{host}
	if host == name.DefaultRegistry {
		hosts = []string{"docker.io", host, authn.DefaultAuthKey}
	}
	for _, h := range hosts {
		if helper := f.Helpers[h]; helper != "" {
			return ask(helper, h)
		}
	}
	for path := "/" + repository; ; path = path[:strings.LastIndexByte(path, '/')] {
		for _, h := range hosts {
			for _, key := range []string{h + path, "https://" + h + path, "https://" + h + path + "/v1/",
				"https://" + h + path + "/v2/"} {
				if a, ok := f.Auths[key]; ok && a != (authn.AuthConfig{}) {
					return authn.FromConfig(a), nil
				}
			}
		}
		if path == "" {
			break
		}
	}
	if f.Store != "" {
		for _, h := range hosts {
			if auth, err := ask(f.Store, h); auth != nil {
				return auth, err
			}
		}
	}
	return nil, nil
}

// ask runs a credential helper. It is not an error if the helper knows no login for host.
func ask(helper, host string) (authn.Authenticator, error) {
	got, err := client.Get(client.NewShellProgramFunc("docker-credential-"+helper), host)
	if credentials.IsErrCredentialsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, banger.Errorf(banger.CodeUnavailable, "the credential helper %s fails for %s: %.200s", helper, host, err)
	}
	if got.Username == "<token>" {
		return authn.FromConfig(authn.AuthConfig{IdentityToken: got.Secret}), nil
	}
	return authn.FromConfig(authn.AuthConfig{Username: got.Username, Password: got.Secret}), nil
}
