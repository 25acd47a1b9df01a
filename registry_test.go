package banger_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"banger"
)

// TestSecretsAreNotShown checks that no way to print an access shows its secrets, while JSON carries them.
func TestSecretsAreNotShown(t *testing.T) {
	a := banger.RegistryAccess{
		HTTPProxy:  "http://me:hush@proxy",
		HTTPSProxy: "http://me:hush@proxy",
		Logins:     []banger.RegistryLogin{{Password: "hush", IdentityToken: "hush", RegistryToken: "hush"}},
	}
	for _, form := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
		if shown := fmt.Sprintf(form, a); strings.Contains(shown, "hush") || !strings.Contains(shown, banger.HiddenValue) {
			t.Errorf("%s shows %s", form, shown)
		}
	}
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("asks", "access", a)
	if strings.Contains(log.String(), "hush") {
		t.Errorf("the log has %s", log.String())
	}
	data, err := json.Marshal(a)
	if err != nil || strings.Count(string(data), "hush") != 5 {
		t.Errorf("as JSON it is %s, %v", data, err)
	}
}

// TestEnvironHasTheProxiesOfTheAccess checks that a program gets these alone, in both cases of letters.
func TestEnvironHasTheProxiesOfTheAccess(t *testing.T) {
	own := []string{"PATH=/bin", "http_proxy=own", "HTTPS_PROXY=own", "All_Proxy=own", "NO_PROXY=own", "PROXY=kept"}
	a := banger.RegistryAccess{HTTPProxy: "theirs", NoProxy: "local"}
	got := a.Environ(own)
	slices.Sort(got)
	want := strings.Fields("HTTP_PROXY=theirs NO_PROXY=local PATH=/bin PROXY=kept http_proxy=theirs no_proxy=local")
	if !slices.Equal(got, want) {
		t.Errorf("it is %q", got)
	}
	if own[1] != "http_proxy=own" {
		t.Errorf("the environment that it was given is now %q", own)
	}
}

// TestALoginIsFoundByItsPlace checks that no other place finds it.
func TestALoginIsFoundByItsPlace(t *testing.T) {
	a := banger.RegistryAccess{Logins: []banger.RegistryLogin{
		{Places: []string{"one.test/a", "two.test/a"}, Username: "me"}, {Places: []string{"one.test/b"}, Username: "you"}}}
	ctx := banger.WithRegistryAccess(context.Background(), a)
	for place, want := range map[string]string{"two.test/a": "me", "one.test/b": "you", "one.test/c": "", "one.test": ""} {
		if l, ok := banger.RegistryAccessOf(ctx).Login(place); l.Username != want || ok != (want != "") {
			t.Errorf("%s finds %+v, %v", place, l, ok)
		}
	}
	if _, ok := banger.RegistryAccessOf(context.Background()).Login("one.test/a"); ok {
		t.Error("a context without access has a login")
	}
}
