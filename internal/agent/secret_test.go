package agent

import (
	"strings"
	"testing"

	"banger"
	"banger/internal/guest"
	"banger/internal/testing/agenttest"
	"banger/internal/testing/processtest"
)

// wanting returns a command that prints a secret.
func wanting(name string) banger.Exec {
	e := agenttest.Shell("echo has $" + name)
	e.Secrets = []string{name}
	return e
}

// TestSecretsOfAGuest come with its configuration and later. A command that wants one that is not there does not start.
func TestSecretsOfAGuest(t *testing.T) {
	a := agenttest.Start(t)
	ctx := processtest.WithPatience(t)
	set := func(name, value string) error {
		return a.SetSecrets(ctx, guest.SecretsRequest{Set: map[string][]byte{name: []byte(value)}})
	}
	if err := set("A", "early"); banger.CodeOf(err) != banger.CodeConflict {
		t.Errorf("before the configuration: %v", err)
	}
	_, err := a.Configure(ctx, guest.Config{Secrets: map[string][]byte{"A": []byte("one")}})
	if err != nil {
		t.Fatal(err)
	}
	want := func(name, value string) {
		t.Helper()
		res := a.Run(t, wanting(name)).Finish()
		switch {
		case value == "" && (res.Started || res.Err == nil || !strings.Contains(res.Err.Error(), "does not have the secret")):
			t.Errorf("without a secret: %+v", res)
		case value != "" && string(res.Stdout) != "has "+value+"\n":
			t.Errorf("a command ends with %+v", res)
		}
	}
	want("A", "one")
	if err := set("A", "two"); err != nil {
		t.Fatal(err)
	}
	want("A", "two")
	want("B", "")
	if err := a.SetSecrets(ctx, guest.SecretsRequest{Remove: []string{"A"}}); err != nil {
		t.Fatal(err)
	}
	want("A", "")
	_, err = a.Restored(ctx, guest.Config{Seed: make([]byte, guest.MinSeed),
		Secrets: map[string][]byte{"B": []byte("of a fork")}})
	if err != nil {
		t.Fatal(err)
	}
	want("B", "of a fork")
}
