package banger_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
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
