package credential

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/docker/docker-credential-helpers/credentials"

	"banger"
	"banger/internal/text"
)

// maxSaid is how many characters of a helper's words an error shows.
const maxSaid = 200

// helperGrace is how long processes that a helper has started may keep its streams after its end.
const helperGrace = time.Second

// ask is the function ask, and asks for each host once.
func (s *Store) ask(ctx context.Context, helper, host string) (Login, bool, error) {
	a, asked := s.helped[helper+" "+host]
	if !asked {
		a.login, a.ok, a.err = ask(ctx, helper, host)
		s.helped[helper+" "+host] = a
	}
	return a.login, a.ok, a.err
}

// ask asks a credential helper for the login at a host. It is not an error if the helper knows none.
func ask(ctx context.Context, helper, host string) (l Login, ok bool, err error) {
	out, err := run(ctx, helper, credentials.ActionGet, host, "")
	if err != nil {
		if credentials.IsErrCredentialsNotFoundMessage(out) {
			return Login{}, false, nil
		}
		return Login{}, false, err
	}
	var got credentials.Credentials
	if json.Unmarshal([]byte(out), &got) != nil {
		return Login{}, false, banger.Errorf(banger.CodeUnavailable,
			"the credential helper %s answers for %s with something else than a login", program(helper), host)
	}
	if got.Username == "<token>" {
		return Login{IdentityToken: got.Secret}, true, nil
	}
	return Login{Username: got.Username, Password: got.Secret}, true, nil
}

// program returns the name of a helper's program.
func program(helper string) string { return "docker-credential-" + helper }

// run runs a credential helper as docker does: with an action, and with input on stdin. It returns what the helper
// printed. The error shows that too, without secret.
func run(ctx context.Context, helper, action, input, secret string) (string, error) {
	path, err := exec.LookPath(program(helper))
	if err != nil {
		return "", banger.Errorf(banger.CodeUnavailable, "there is no program %s, which docker's configuration names as the "+
			"place of its logins", program(helper)).
			WithHint("install it, or take it out of credsStore and credHelpers in docker's config.json")
	}
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, path, action)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(input), &out, os.Stderr
	cmd.WaitDelay = helperGrace
	if err = cmd.Run(); err == nil {
		return out.String(), nil
	}
	if ctx.Err() != nil {
		return "", banger.Canceled(ctx.Err())
	}
	said := strings.TrimSpace(out.String())
	shown := said
	if secret != "" {
		shown = strings.ReplaceAll(said, secret, banger.HiddenValue)
	}
	e := banger.Errorf(banger.CodeUnavailable, "the credential helper %s cannot %s a login", program(helper), action)
	if shown != "" {
		e.Message += ": " + text.Limit(shown, maxSaid)
	}
	return said, e
}
