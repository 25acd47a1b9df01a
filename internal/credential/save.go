package credential

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/docker/docker-credential-helpers/credentials"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/blob"
)

// key returns the name under which docker stores the login of a registry.
func key(host string) string {
	if host == name.DefaultRegistry {
		return authn.DefaultAuthKey
	}
	return host
}

// Save stores a login as docker login does: in the helper that docker's config.json names, or else in that file. It
// returns the path of the file if the password is in it.
func (s *Store) Save(ctx context.Context, host string, l Login) (path string, err error) {
	release, err := s.lock(true)
	if err != nil {
		return "", err
	}
	defer release()
	path, doc, f, err := s.document()
	if err != nil {
		return "", err
	}
	entry := map[string]string{}
	helper := f.helper(host)
	if helper != "" {
		input, err := json.Marshal(credentials.Credentials{ServerURL: key(host), Username: l.Username, Secret: l.Password})
		if err != nil {
			return "", err
		}
		if _, err := run(ctx, helper, credentials.ActionStore, string(input), l.Password); err != nil {
			return "", err
		}
	} else {
		entry["auth"] = base64.StdEncoding.EncodeToString([]byte(l.Username + ":" + l.Password))
	}
	auths, err := authsOf(path, doc)
	if err != nil {
		return "", err
	}
	if auths[key(host)], err = json.Marshal(entry); err != nil {
		return "", err
	}
	if err := write(path, doc, auths); err != nil || helper != "" {
		return "", err
	}
	return path, nil
}

// Erase removes the login of a registry from docker's config.json and from the helper that it names. It is not an
// error if no login is stored.
func (s *Store) Erase(ctx context.Context, host string) error {
	release, err := s.lock(false)
	if err != nil {
		return err
	}
	defer release()
	path, doc, f, err := s.document()
	if err != nil {
		return err
	}
	if helper := f.helper(host); helper != "" {
		for _, k := range keysOf(host) {
			out, err := run(ctx, helper, credentials.ActionErase, k, "")
			if err != nil && !credentials.IsErrCredentialsNotFoundMessage(out) {
				return err
			}
		}
	}
	auths, err := authsOf(path, doc)
	if err != nil {
		return err
	}
	found := false
	for _, k := range keysOf(host) {
		for _, form := range []string{k, "https://" + k, "http://" + k, "https://" + k + "/v1/", "https://" + k + "/v2/"} {
			_, there := auths[form]
			found = found || there
			delete(auths, form)
		}
	}
	if !found {
		return nil
	}
	return write(path, doc, auths)
}

// helper returns the helper that keeps the login of a registry, or "".
func (f *authFile) helper(host string) string {
	keys := keysOf(host)
	if i := slices.IndexFunc(keys, func(k string) bool { return f.Helpers[k] != "" }); i >= 0 {
		return f.Helpers[keys[i]]
	}
	return f.Store
}

// lock keeps other calls of Save and Erase from docker's config.json until release is called. It locks the file's
// directory, which it makes if that is wanted. A directory that does not exist needs no lock.
func (s *Store) lock(make bool) (release func(), err error) {
	path, ok := s.dockerFile()
	if !ok {
		return nil, banger.Errorf(banger.CodeInvalid, "there is no place for logins: neither DOCKER_CONFIG nor HOME is set")
	}
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target
	}
	dir := filepath.Dir(path)
	if make {
		err = os.MkdirAll(dir, 0o700)
	}
	var d *os.File
	if err == nil {
		d, err = os.Open(dir)
	}
	if !make && errors.Is(err, fs.ErrNotExist) {
		return func() {}, nil
	}
	if err == nil {
		if err = unix.Flock(int(d.Fd()), unix.LOCK_EX); err != nil {
			d.Close()
		}
	}
	if err != nil {
		return nil, unwritable(path)
	}
	return func() { d.Close() }, nil // which also releases the lock
}

// document returns docker's config.json: its path, and its contents both as they are and as far as they concern us. A
// file that does not exist has none.
func (s *Store) document() (path string, doc map[string]json.RawMessage, f authFile, err error) {
	path, _ = s.dockerFile()
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target // the link stays
	}
	if f, err = readFile(path); err != nil {
		return path, nil, f, err
	}
	doc = map[string]json.RawMessage{}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(data) == 0 {
		return path, doc, f, nil
	}
	if err != nil || json.Unmarshal(data, &doc) != nil || doc == nil {
		return path, nil, f, unreadable(path, "it is not what docker or podman write")
	}
	return path, doc, f, nil
}

// authsOf returns the entries of the logins in docker's config.json.
func authsOf(path string, doc map[string]json.RawMessage) (map[string]json.RawMessage, error) {
	auths := map[string]json.RawMessage{}
	if doc["auths"] != nil && json.Unmarshal(doc["auths"], &auths) != nil {
		return nil, unreadable(path, "its logins are not what docker or podman write")
	}
	if auths == nil { // it was null
		auths = map[string]json.RawMessage{}
	}
	return auths, nil
}

// write replaces docker's config.json, durably and for this user alone. It keeps all other keys.
func write(path string, doc, auths map[string]json.RawMessage) (err error) {
	if doc["auths"], err = json.Marshal(auths); err != nil {
		return err
	}
	data, err := json.MarshalIndent(doc, "", "\t")
	if err != nil {
		return err
	}
	err = blob.WriteFile(path, 0o600, func(w io.Writer) error {
		_, err := w.Write(append(data, '\n'))
		return err
	})
	if err != nil {
		return unwritable(path)
	}
	return nil
}

// unwritable returns the error for a file of logins that cannot be written.
func unwritable(path string) error {
	return banger.Errorf(banger.CodeDisk, "cannot write the logins to %s", path).
		WithHint("check who owns its directory, and whether the disk is full")
}
