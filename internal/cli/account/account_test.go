package account

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"banger"
	"banger/internal/api/client"
	"banger/internal/cli/command"
	"banger/internal/credential"
	"banger/internal/testing/apitest"
	"banger/internal/testing/registrytest"
)

// newUser makes this process that of a user without logins and proxies, whose home directory it returns.
func newUser(t *testing.T) (home string) {
	t.Helper()
	home = t.TempDir()
	t.Setenv("HOME", home)
	for _, name := range []string{"DOCKER_CONFIG", "REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR", "HTTP_PROXY", "http_proxy",
		"HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy"} {
		t.Setenv(name, "")
	}
	t.Setenv("CONTAINERS_REGISTRIES_CONF", filepath.Join(home, "none"))
	return home
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// config returns a config.json with a login for each host.
func config(user, password string, hosts ...string) string {
	auth := base64.StdEncoding.EncodeToString([]byte(user + ":" + password))
	var list []string
	for _, h := range hosts {
		list = append(list, fmt.Sprintf("%q:{\"auth\":%q}", h, auth))
	}
	return `{"auths":{` + strings.Join(list, ",") + `}}`
}

// TestWhatARequestMayUse checks which logins and proxies go with a request.
func TestWhatARequestMayUse(t *testing.T) {
	home := newUser(t)
	write(t, home+"/.docker/config.json", config("me", "hush", "one.test", "two.test", "mirror.test",
		"https://index.docker.io/v1/"))
	write(t, home+"/registries.conf", "[[registry]]\nlocation = \"two.test\"\n"+
		"[[registry.mirror]]\nlocation = \"mirror.test/copy\"\n")
	t.Setenv("CONTAINERS_REGISTRIES_CONF", home+"/registries.conf")
	t.Setenv("https_proxy", "http://proxy:1")
	t.Setenv("HTTP_PROXY", "http://proxy:2")
	t.Setenv("NO_PROXY", "local")
	for refs, places := range map[string][]string{
		"one.test/a:v1":               {"one.test/a"},
		"one.test/a:v1 one.test/b:v1": {"one.test/a", "one.test/b"},
		"one.test/a:v1 one.test/a:v2": {"one.test/a"},
		"two.test/a":                  {"mirror.test/copy/a", "two.test/a"},
		"alpine":                      {"index.docker.io/library/alpine"},
		"three.test/a":                nil,
		"oci:/one.test/a":             nil,
		"debian-bookworm":             nil,
		"x:y:z":                       nil,
	} {
		ctx, failed := WithKnown(context.Background(), strings.Split(refs, " ")...)
		a := banger.RegistryAccessOf(ctx)
		if len(failed) > 0 || a.HTTPSProxy != "http://proxy:1" || a.HTTPProxy != "http://proxy:2" || a.NoProxy != "local" {
			t.Errorf("%s: %v, %+v", refs, failed, a)
		}
		if (places == nil) != (len(a.Logins) == 0) || (places == nil) != (a.Known == nil) {
			t.Errorf("%s: %+v", refs, a)
		}
		if places != nil && (len(a.Logins) != 1 || !slices.Equal(a.Logins[0].Places, places) ||
			a.Logins[0].Password != "hush") {
			t.Errorf("%s: the logins are %+v", refs, a.Logins)
		}
	}
	if a := banger.RegistryAccessOf(WithProxies(context.Background())); a.Logins != nil || a.HTTPProxy == "" {
		t.Errorf("the proxies alone are %+v", a)
	}
}

// TestAUselessLoginIsOneReferences checks that one registry's broken helper does not concern the others.
func TestAUselessLoginIsOneReferences(t *testing.T) {
	home := newUser(t)
	write(t, home+"/.docker/config.json", strings.TrimSuffix(config("me", "hush", "one.test"), "}")+
		`,"credHelpers":{"two.test":"nowhere"}}`)
	ctx, failed := WithKnown(context.Background(), "one.test/a", "two.test/a")
	if len(failed) != 1 || banger.CodeOf(failed["two.test/a"]) != banger.CodeUnavailable {
		t.Errorf("the failures are %v", failed)
	}
	if a := banger.RegistryAccessOf(ctx); len(a.Logins) != 1 || a.Logins[0].Places[0] != "one.test/a" {
		t.Errorf("the access is %+v", a)
	}
	if _, err := With(context.Background(), "two.test/a"); err == nil {
		t.Error("it is no error where only this login is wanted")
	}
}

// TestLoginsForAVM checks that a VM brings logins only if its image may have to be fetched.
func TestLoginsForAVM(t *testing.T) {
	home := newUser(t)
	write(t, home+"/.docker/config.json", config("me", "hush", "one.test"))
	client := client.New(apitest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
		if !strings.Contains(r.URL.String(), "here") {
			w.WriteHeader(http.StatusNotFound)
			io.WriteString(w, `{"error":{"code":"not_found","message":"none"}}`)
			return
		}
		json.NewEncoder(w).Encode(banger.Image{Platform: "linux/amd64"})
	}))
	for name, c := range map[string]struct {
		spec  banger.Spec
		login bool
	}{
		"here":                {banger.Spec{Image: "one.test/here"}, false},
		"here, of a platform": {banger.Spec{Image: "one.test/here", Platform: "linux/amd64"}, false},
		"here, of another":    {banger.Spec{Image: "one.test/here", Platform: "linux/arm64"}, true},
		"here, but always":    {banger.Spec{Image: "one.test/here", Pull: banger.PullAlways}, true},
		"not here":            {banger.Spec{Image: "one.test/a"}, true},
		"not here, never":     {banger.Spec{Image: "one.test/a", Pull: banger.PullNever}, false},
	} {
		ctx, err := WithSpec(context.Background(), client, c.spec)
		if err != nil || (len(banger.RegistryAccessOf(ctx).Logins) > 0) != c.login {
			t.Errorf("%s: %+v, %v", name, banger.RegistryAccessOf(ctx), err)
		}
	}
}

// run runs login or logout with text on stdin.
func run(t *testing.T, of func(*command.App) *cobra.Command, stdin string,
	args ...string) (out, errs string, err error) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	go func() { // ends when all is read, or with r
		io.WriteString(w, stdin)
		w.Close()
	}()
	var stdout, stderr bytes.Buffer
	c := of(&command.App{Stdin: r, Stdout: &stdout, Stderr: &stderr})
	c.SetArgs(args)
	c.SilenceErrors, c.SilenceUsage = true, true
	err = c.ExecuteContext(t.Context())
	return stdout.String(), stderr.String(), err
}

// TestLogin checks what the forms of login print and keep.
func TestLogin(t *testing.T) {
	const insecure = "WARNING! Using --password via the CLI is insecure. Use --password-stdin.\n"
	for name, c := range map[string]struct {
		args, stdin string
		stored      string // password before
		stderr, err string
		kept        string // password behind it
	}{
		"by stdin": {"-u me --password-stdin HOST", "hush\n", "", "WARNING! Your password is stored", "", "hush"},
		"of another URL": {"-u me --password-stdin https://HOST/v2/", "hush\r\n", "", "WARNING! Your password is stored",
			"", "hush"},
		"by flags": {"-u me -p hush HOST", "", "", insecure + "WARNING! Your password is stored", "", "hush"},
		"wrong":    {"-u me --password-stdin HOST", "wrong", "before", "", "refuses this login", "before"},
		"stored":   {"HOST", "", "hush", "Authenticating with existing credentials...\n", "", "hush"},
		"stored, but wrong": {"HOST", "", "before", "Authenticating with existing credentials...\n", "refuses this login",
			"before"},
		"nothing is given": {"HOST", "", "", "", "the login needs a user and a password, and stdin is no terminal", ""},
		"no password":      {"-u me HOST", "", "", "", "the login needs a user and a password", ""},
		"an empty one":     {"-u me --password-stdin HOST", "\n", "", "", "the user or the password is empty", ""},
		"a long one":       {"-u me --password-stdin HOST", strings.Repeat("x", maxPassword+1), "", "", "at most 64 KiB", ""},
		"both ways":        {"-u me -p x --password-stdin HOST", "", "", "", "exclude each other", ""},
		"no user":          {"--password-stdin HOST", "hush", "", "", "needs the user", ""},
		"no host":          {"-u me -p hush a:b", "", "", "", "is not the host of a registry", ""},
		"two hosts":        {"HOST HOST", "", "", "", "these arguments do not fit", ""},
	} {
		t.Run(name, func(t *testing.T) {
			home, s := newUser(t), registrytest.Start()
			defer s.Close()
			s.RequireBasic("me", "hush")
			file := home + "/.docker/config.json"
			if c.stored != "" {
				write(t, file, config("me", c.stored, s.Addr()))
			}
			stdout, stderr, err := run(t, NewLogin, c.stdin, strings.Fields(strings.ReplaceAll(c.args, "HOST", s.Addr()))...)
			if c.err == "" && (err != nil || stdout != "Login Succeeded\n") {
				t.Errorf("it prints %q, %v", stdout, err)
			}
			if c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err) || stdout != "") {
				t.Errorf("it prints %q, %v", stdout, err)
			}
			if c.stderr == "" && c.err != "" && !strings.Contains(c.args, "-p") && stderr != "" ||
				!strings.HasPrefix(stderr, c.stderr) {
				t.Errorf("on stderr there is %q", stderr)
			}
			data, _ := os.ReadFile(file)
			if want := config("me", c.kept, s.Addr()); c.kept == "" && len(data) > 0 ||
				c.kept != "" && strings.Join(strings.Fields(string(data)), "") != want {
				t.Errorf("the file is %s", data)
			}
		})
	}
}

// TestLogout checks that it removes one login, and says which.
func TestLogout(t *testing.T) {
	home := newUser(t)
	write(t, home+"/.docker/config.json", config("me", "hush", "one.test", "two.test:5000", "https://index.docker.io/v1/"))
	for _, c := range []struct {
		args  []string
		shown string
		left  []string
	}{
		{[]string{"https://two.test:5000/v2/"}, "two.test:5000", []string{"index.docker.io", "one.test"}},
		{[]string{"three.test"}, "three.test", []string{"index.docker.io", "one.test"}},
		{nil, "docker.io", []string{"one.test"}},
	} {
		stdout, _, err := run(t, NewLogout, "", c.args...)
		if err != nil || stdout != "Removing login credentials for "+c.shown+"\n" {
			t.Errorf("logout %q prints %q, %v", c.args, stdout, err)
		}
		left, err := credential.New(os.Getenv).Hosts()
		if err != nil || !slices.Equal(left, c.left) {
			t.Errorf("logout %q leaves %q, %v", c.args, left, err)
		}
	}
}
