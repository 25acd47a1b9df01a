// Package credential keeps a user's logins at registries where docker and podman keep them: in their files, and in the
// programs that those files name.
//
// It must not know what a login is used for, and it contains no connection to a registry. It runs in the process of the
// user whose logins they are.
package credential

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"

	"banger"
)

// Store is the logins of one user. Its methods must not be called concurrently.
type Store struct {
	getenv func(string) string
	helped map[string]answer // what helpers have answered, by helper and host
}

// answer is what a helper has answered.
type answer struct {
	login Login
	ok    bool
	err   error
}

// New returns the logins whose places the variables of an environment name.
func New(getenv func(string) string) *Store {
	return &Store{getenv: getenv, helped: map[string]answer{}}
}

// Login is what a registry is told about the user.
type Login struct {
	Username      string
	Password      string
	IdentityToken string
	RegistryToken string
}

// authFile is docker's config.json, or an auth.json (containers-auth.json(5)).
type authFile struct {
	Auths   map[string]authn.AuthConfig `json:"auths"`
	Helpers map[string]string           `json:"credHelpers"`
	Store   string                      `json:"credsStore"`
}

// Find returns the login for a repository that docker login, podman login or banger login stored. ok is false if none
// of them stored one.
func (s *Store) Find(ctx context.Context, host, repository string) (l Login, ok bool, err error) {
	for _, path := range s.files() {
		f, err := readFile(path)
		if err != nil {
			return Login{}, false, err
		}
		if l, ok, err := s.find(ctx, f, host, repository); ok || err != nil {
			return l, ok, err
		}
	}
	return Login{}, false, nil
}

// Hosts returns the hosts for which there is a login of all their repositories, as far as the files say.
func (s *Store) Hosts() (hosts []string, err error) {
	for _, path := range s.files() {
		f, err := readFile(path)
		if err != nil {
			return nil, err
		}
		keys := slices.Collect(maps.Keys(f.Auths))
		for _, key := range append(keys, slices.Collect(maps.Keys(f.Helpers))...) {
			key = strings.TrimPrefix(key, "https://")
			for _, end := range []string{"/", "/v1", "/v2"} {
				key = strings.TrimSuffix(key, end)
			}
			if !strings.Contains(key, "/") {
				hosts = append(hosts, key)
			}
		}
	}
	slices.Sort(hosts)
	return slices.Compact(hosts), nil
}

// files returns the files in which logins may be, in the order in which they count.
func (s *Store) files() []string {
	var list []string
	if v := s.getenv("REGISTRY_AUTH_FILE"); v != "" {
		list = append(list, v)
	}
	if path, ok := s.dockerFile(); ok {
		list = append(list, path)
	}
	if v := s.getenv("XDG_RUNTIME_DIR"); v != "" {
		list = append(list, filepath.Join(v, "containers/auth.json"))
	}
	list = append(list, fmt.Sprintf("/run/containers/%d/auth.json", os.Getuid()))
	if v := s.getenv("HOME"); v != "" {
		list = append(list, filepath.Join(v, ".config/containers/auth.json"))
	}
	return list
}

// dockerFile returns the path of docker's config.json. ok is false if the environment names no place for it.
func (s *Store) dockerFile() (path string, ok bool) {
	dir := s.getenv("DOCKER_CONFIG")
	if dir == "" && s.getenv("HOME") != "" {
		dir = filepath.Join(s.getenv("HOME"), ".docker")
	}
	return filepath.Join(dir, "config.json"), dir != ""
}

// readFile reads a file of logins. A file that does not exist has none.
func readFile(path string) (f authFile, err error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(data) == 0 {
		return authFile{}, nil
	}
	if err != nil {
		return authFile{}, unreadable(path, "it cannot be opened")
	}
	if json.Unmarshal(data, &f) != nil {
		return authFile{}, unreadable(path, "it is not what docker or podman write")
	}
	return f, nil
}

// unreadable returns the error for a file of logins. It has none of the file's text, which may be a password.
func unreadable(path, why string) error {
	return banger.Errorf(banger.CodeInvalid, "cannot read the logins in %s: %s", path, why).
		WithHint("correct or remove the file")
}

// keysOf returns the names under which a registry's logins may be stored.
func keysOf(host string) []string {
	if host == name.DefaultRegistry {
		return []string{authn.DefaultAuthKey, "docker.io", host}
	}
	return []string{host}
}

// find returns the login in a file, of the longest prefix of host/repository that has an entry.
func (s *Store) find(ctx context.Context, f authFile, host, repository string) (l Login, ok bool, err error) {
	hosts := keysOf(host)
	for _, h := range hosts {
		if helper := f.Helpers[h]; helper != "" {
			return s.askForAny(ctx, helper, hosts)
		}
	}
	for path := "/" + repository; ; path = path[:strings.LastIndexByte(path, '/')] {
		for _, h := range hosts {
			for _, key := range []string{h + path, "https://" + h + path, "https://" + h + path + "/v1/",
				"https://" + h + path + "/v2/"} {
				if a, ok := f.Auths[key]; ok && a != (authn.AuthConfig{}) {
					return Login{a.Username, a.Password, a.IdentityToken, a.RegistryToken}, true, nil
				}
			}
		}
		if path == "" {
			break
		}
	}
	if f.Store == "" {
		return Login{}, false, nil
	}
	return s.askForAny(ctx, f.Store, hosts)
}

// askForAny asks a helper for the names of a host until it knows one.
func (s *Store) askForAny(ctx context.Context, helper string, names []string) (l Login, ok bool, err error) {
	for _, name := range names {
		if l, ok, err = s.ask(ctx, helper, name); ok || err != nil {
			return l, ok, err
		}
	}
	return Login{}, false, nil
}
