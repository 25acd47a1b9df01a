package credential

import (
	"context"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"banger"
)

var bg = context.Background()

// user is a user with a home directory and no logins.
type user struct {
	*Store
	t   *testing.T
	dir string
	env map[string]string
}

func newUser(t *testing.T) *user {
	t.Helper()
	u := &user{t: t, dir: t.TempDir()}
	u.env = map[string]string{"HOME": u.dir}
	u.Store = New(func(k string) string { return u.env[k] })
	return u
}

// write writes a file in the home directory and returns its path.
func (u *user) write(name, content string, mode os.FileMode) string {
	u.t.Helper()
	path := filepath.Join(u.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		u.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		u.t.Fatal(err)
	}
	return path
}

func (u *user) config() string {
	u.t.Helper()
	data, err := os.ReadFile(filepath.Join(u.dir, ".docker/config.json"))
	if err != nil {
		u.t.Fatal(err)
	}
	return string(data)
}

// helper installs a credential helper that keeps logins as files, as those of docker do.
func (u *user) helper(name string) {
	u.t.Helper()
	u.write("bin/docker-credential-"+name, `#!/bin/sh
cd "`+u.dir+`"
read -r line
none() { echo "credentials not found in native keychain"; exit 1; }
file() { echo "kept-$(echo "$1" | tr -c 'a-z0-9\n' _)"; }
case $1 in
get) cat "$(file "$line")" 2>/dev/null || none;;
store) host=${line#*ServerURL\":\"}; echo "$line" > "$(file "${host%%\"*}")";;
erase) rm "$(file "$line")" 2>/dev/null || none;;
esac
`, 0o700)
	u.t.Setenv("PATH", filepath.Join(u.dir, "bin")+":/usr/bin:/bin")
}

func entry(user, password string) string {
	return fmt.Sprintf(`{"auth":%q}`, base64.StdEncoding.EncodeToString([]byte(user+":"+password)))
}

// wantError checks an error's code and words, and that it has no words of a library and no secret.
func wantError(t *testing.T, err error, code banger.Code, words string) {
	t.Helper()
	if banger.CodeOf(err) != code || !strings.Contains(err.Error(), words) {
		t.Errorf("the error is %v (%s), and has no %q", err, banger.CodeOf(err), words)
		return
	}
	for _, foreign := range []string{"json", "invalid character", "exit status", "exec:", "open /", "hush"} {
		if strings.Contains(strings.ReplaceAll(err.Error(), "config.json", ""), foreign) {
			t.Errorf("the error has %q in it: %v", foreign, err)
		}
	}
}

// TestALoginIsKeptAndRemoved checks that a login is found again, also with a helper, and is gone after its removal.
func TestALoginIsKeptAndRemoved(t *testing.T) {
	for name, config := range map[string]string{
		"in the file":        "",
		"by a helper":        `{"credsStore":"test"}`,
		"by a host's helper": `{"credHelpers":{"registry.test":"test","docker.io":"test"}}`,
	} {
		for _, host := range []string{"registry.test", "registry.test:5000", "index.docker.io"} {
			t.Run(name+", "+host, func(t *testing.T) {
				u := newUser(t)
				u.helper("test")
				if config != "" {
					u.write(".docker/config.json", config, 0o600)
				}
				want := Login{Username: "me", Password: "hu\"sh:"}
				path, err := u.Save(bg, host, want)
				if err != nil {
					t.Fatal(err)
				}
				helped := strings.Contains(config, "credsStore") || config != "" && host != "registry.test:5000"
				if inFile := strings.Contains(u.config(), `"auth"`); inFile == helped || (path == "") != helped {
					t.Errorf("the path is %q, the file is %s", path, u.config())
				}
				u.Store = New(u.getenv) // helpers are asked once
				if l, ok, err := u.Find(bg, host, "any"); l != want || !ok || err != nil {
					t.Errorf("it finds %+v, %v, %v", l, ok, err)
				}
				if err := u.Erase(bg, host); err != nil {
					t.Error(err)
				}
				u.Store = New(u.getenv)
				if l, ok, err := u.Find(bg, host, "any"); ok || err != nil {
					t.Errorf("after its removal it finds %+v, %v", l, err)
				}
				if err := u.Erase(bg, host); err != nil {
					t.Errorf("the second removal: %v", err)
				}
			})
		}
	}
}

// TestTheFileKeepsAllElse checks that keys that we do not know and other logins stay, also in the file behind a link,
// and that the file is for its user alone.
func TestTheFileKeepsAllElse(t *testing.T) {
	u := newUser(t)
	other := `"other.test":` + entry("you", "theirs")
	real := u.write("elsewhere/real.json", `{"detachKeys":"ctrl-x","auths":{`+other+`},"plugins":{"x":{"n":1.50}}}`, 0o644)
	link := filepath.Join(u.dir, ".docker/config.json")
	if err := os.Mkdir(filepath.Dir(link), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(real, link); err != nil {
		t.Fatal(err)
	}
	path, err := u.Save(bg, "registry.test", Login{Username: "me", Password: "hush"})
	if err != nil || path != real {
		t.Fatalf("%q, %v", path, err)
	}
	saved := strings.Join(strings.Fields(u.config()), "")
	for _, want := range []string{`"detachKeys":"ctrl-x"`, other, `"plugins":{"x":{"n":1.50}}`,
		`"registry.test":` + entry("me", "hush")} {
		if !strings.Contains(saved, want) {
			t.Errorf("%s is not in %s", want, saved)
		}
	}
	if info, err := os.Lstat(link); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link is %v, %v", info, err)
	}
	if info, err := os.Stat(real); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file is %v, %v", info, err)
	}
	if err := u.Erase(bg, "registry.test"); err != nil {
		t.Fatal(err)
	}
	if saved := u.config(); strings.Contains(saved, "registry.test") || !strings.Contains(saved, "other.test") {
		t.Errorf("after the removal it is %s", saved)
	}
}

// TestLoginsAtOnce checks that no login of several at the same time is lost.
func TestLoginsAtOnce(t *testing.T) {
	u := newUser(t)
	var wg sync.WaitGroup
	var want []string
	for i := range 20 {
		host := fmt.Sprintf("registry%02d.test", i)
		want = append(want, host)
		wg.Go(func() {
			if _, err := New(u.getenv).Save(bg, host, Login{Username: "me", Password: "hush"}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if hosts, err := u.Hosts(); err != nil || !slices.Equal(hosts, want) {
		t.Errorf("there are logins for %q, %v", hosts, err)
	}
}

// TestHosts checks for which hosts as a whole there are logins.
func TestHosts(t *testing.T) {
	u := newUser(t)
	u.write(".docker/config.json", `{"auths":{"https://one.test/v2/":{},"two.test":{},"three.test/team":{},
		"https://index.docker.io/v1/":{}},"credHelpers":{"four.test":"x","two.test":"x"}}`, 0o600)
	want := []string{"four.test", "index.docker.io", "one.test", "two.test"}
	if hosts, err := u.Hosts(); err != nil || !slices.Equal(hosts, want) {
		t.Errorf("they are %q, %v", hosts, err)
	}
}

// TestFilesThatCannotBeUsed checks that errors name the file and what to do, and that such a file stays as it is.
func TestFilesThatCannotBeUsed(t *testing.T) {
	for name, content := range map[string]string{
		"no JSON":          `{"auths":{"registry.test":{"auth":"aHVzaA`,
		"no object":        `"hush"`,
		"auths is no map":  `{"auths":"hush"}`,
		"auth is no login": `{"auths":{"registry.test":{"auth":"hush"}}}`,
	} {
		t.Run(name, func(t *testing.T) {
			u := newUser(t)
			path := u.write(".docker/config.json", content, 0o600)
			_, _, err := u.Find(bg, "registry.test", "a")
			wantError(t, err, banger.CodeInvalid, "cannot read the logins in "+path)
			_, err = u.Save(bg, "registry.test", Login{Username: "me", Password: "hush"})
			wantError(t, err, banger.CodeInvalid, "cannot read the logins in "+path)
			wantError(t, u.Erase(bg, "registry.test"), banger.CodeInvalid, "correct or remove the file")
			if u.config() != content {
				t.Errorf("the file is now %s", u.config())
			}
		})
	}
	u := newUser(t)
	u.write(".docker", "a file", 0o600)
	_, err := u.Save(bg, "registry.test", Login{Username: "me", Password: "hush"})
	wantError(t, err, banger.CodeDisk, "cannot write the logins to ")
	delete(u.env, "HOME")
	_, err = u.Save(bg, "registry.test", Login{Username: "me", Password: "hush"})
	wantError(t, err, banger.CodeInvalid, "neither DOCKER_CONFIG nor HOME is set")
}

// TestHelpersThatFail checks the errors for them. No secret is in them, even if the helper prints it.
func TestHelpersThatFail(t *testing.T) {
	login := Login{Username: "me", Password: "hush"}
	for name, c := range map[string]struct{ program, find, save string }{
		"it is not there": {"", "there is no program docker-credential-test", "there is no program docker-credential-test"},
		"it refuses": {"#!/bin/sh\ncat > /dev/null\necho no: hush\nexit 1\n", "",
			"docker-credential-test cannot store a login: no: ***"},
		"it prints nonsense": {"#!/bin/sh\necho nonsense\n",
			"answers for registry.test with something else than a login", ""},
	} {
		t.Run(name, func(t *testing.T) {
			u := newUser(t)
			t.Setenv("PATH", filepath.Join(u.dir, "bin")+":/usr/bin:/bin")
			if c.program != "" {
				u.write("bin/docker-credential-test", c.program, 0o700)
			}
			u.write(".docker/config.json", `{"credsStore":"test"}`, 0o600)
			if _, _, err := u.Find(bg, "registry.test", "a"); c.find != "" {
				wantError(t, err, banger.CodeUnavailable, c.find)
			}
			if _, err := u.Save(bg, "registry.test", login); c.save != "" {
				wantError(t, err, banger.CodeUnavailable, c.save)
			}
		})
	}
}

// TestAHelperEndsWithItsContext checks that a helper that waits for its user can be given up.
func TestAHelperEndsWithItsContext(t *testing.T) {
	u := newUser(t)
	t.Setenv("PATH", filepath.Join(u.dir, "bin")+":/usr/bin:/bin")

	u.write("bin/docker-credential-test", "#!/bin/sh\nexec sleep 1000\n", 0o700)
	u.write(".docker/config.json", `{"credsStore":"test"}`, 0o600)
	ctx, cancel := context.WithCancel(bg)
	cancel()
	_, _, err := u.Find(ctx, "registry.test", "a")
	wantError(t, err, banger.CodeCanceled, "canceled")
}
