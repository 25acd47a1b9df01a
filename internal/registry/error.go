package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"banger"
	"banger/internal/blob"
	"banger/internal/text"
)

// statusError is an answer with an error status.
type statusError struct {
	status int
	text   string
	after  time.Duration
}

func (e *statusError) Error() string {
	s := fmt.Sprintf("it answers %d %s", e.status, http.StatusText(e.status))
	if e.text != "" {
		s += ": " + e.text
	}
	return s
}

// Permanent reports whether another attempt would get the same answer, or has to wait for too long.
func (e *statusError) Permanent() bool { return !passes(e.status) || e.after > patience }

// passes reports whether another attempt may get another answer.
func passes(status int) bool {
	switch status {
	case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusInternalServerError, http.StatusBadGateway,
		http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

// RetryAfter returns the pause that the registry asked for, or 0.
func (e *statusError) RetryAfter() time.Duration { return e.after }

func statusOf(res *http.Response) error {
	body, _ := io.ReadAll(io.LimitReader(res.Body, 8<<10))
	var parsed struct {
		Errors []struct{ Code, Message string }
	}
	said := ""
	if json.Unmarshal(body, &parsed) == nil && len(parsed.Errors) > 0 {
		said = parsed.Errors[0].Code + " " + parsed.Errors[0].Message
	}
	return &statusError{res.StatusCode, text.Limit(said, maxErrorText), retryAfter(res.Header.Get("Retry-After"))}
}

// retryAfter parses a number of seconds or a date (RFC 9110, section 10.2.3).
func retryAfter(s string) time.Duration {
	if n, err := strconv.Atoi(s); err == nil && n > 0 {
		return min(time.Duration(n)*time.Second, maxWait)
	}
	if t, err := http.ParseTime(s); err == nil {
		return min(max(time.Until(t), 0), maxWait)
	}
	return 0
}

func isPermanent(err error) bool {
	if e, ok := errors.AsType[*transport.Error](err); ok {
		return !passes(e.StatusCode)
	}
	if f, ok := errors.AsType[*fault](err); ok {
		return f.final
	}
	if w, ok := errors.AsType[weak](err); ok {
		return w.fault.final
	}
	p, ok := errors.AsType[interface {
		error
		Permanent() bool
	}](err)
	return ok && p.Permanent()
}

// quiet keeps a cause reachable without printing its words, which may be those of a library.
type quiet struct{ error }

func (quiet) Error() string   { return "" }
func (q quiet) Unwrap() error { return q.error }

// wrap describes a failure for a person and keeps what a retry needs to know.
func (c *Client) wrap(ctx context.Context, r reference, err error) error {
	if err == nil {
		return nil
	}
	registry := r.repo.RegistryStr()
	if ctx.Err() != nil {
		e := banger.Canceled(ctx.Err())
		e.Message += " while asking registry " + registry
		return e
	}
	if banger.CodeOf(err) != banger.CodeInternal {
		return err
	}
	e := c.describe(r, err)
	e.Err = quiet{err}
	if isPermanent(err) {
		return blob.Permanent(e)
	}
	return e
}

// describe returns the error that a person reads about err.
func (c *Client) describe(r reference, err error) *banger.Error {
	registry, image := r.repo.RegistryStr(), r.repo.RepositoryStr()+":"+r.identifier
	if r.isDigest() {
		image = r.repo.RepositoryStr() + "@" + r.identifier
	}
	_, known := c.access.Login(registry + "/" + r.repo.RepositoryStr())
	if f := faultOf(err); f != nil {
		e := banger.Errorf(banger.CodeUnavailable, "%s: %s", c.failed(r, image), text.Limit(f.text, text.MaxError))
		if f.noReach == registry {
			e = banger.Errorf(banger.CodeUnavailable, "registry %s cannot be reached: %s", registry, f.text)
		}
		e.Hint = f.hint
		return e
	}
	switch status := statusIn(err); {
	case status == http.StatusNotFound && known:
		return banger.Errorf(banger.CodeNotFound, "registry %s has no image %s", registry, image).
			WithHint("check name and tag")
	case status == http.StatusNotFound:
		return banger.Errorf(banger.CodeNotFound, "registry %s has no image %s", registry, image).
			WithHint("check name and tag; a private image may need a login: %s", loginCommand(registry))
	case refuses(status) && known:
		return banger.Errorf(banger.CodeDenied, "registry %s refuses access to %s with your login", registry, image).
			WithHint("check the name, or log in again: %s", loginCommand(registry))
	case refuses(status):
		return banger.Errorf(banger.CodeDenied, "registry %s refuses access to %s", registry, image).
			WithHint("check the name, or log in: %s", loginCommand(registry))
	case status == http.StatusTooManyRequests:
		return c.tooMany(registry, known)
	case status == http.StatusProxyAuthRequired:
		return banger.Errorf(banger.CodeUnavailable, "%s: the proxy wants a login", c.failed(r, image)).
			WithHint("HTTP_PROXY may have one: http://USER:PASSWORD@HOST:PORT")
	}
	return banger.Errorf(banger.CodeUnavailable, "%s: %s", c.failed(r, image), text.Limit(inWords(err), text.MaxError))
}

// failed returns what failed, as the start of a sentence.
func (c *Client) failed(r reference, image string) string {
	if r.login {
		return "cannot log in at registry " + r.repo.RegistryStr()
	}
	if r.write {
		return fmt.Sprintf("cannot write %s to registry %s", image, r.repo.RegistryStr())
	}
	return fmt.Sprintf("cannot read %s from registry %s", image, r.repo.RegistryStr())
}

// tooMany returns the error of a registry that has got too many requests.
func (c *Client) tooMany(registry string, known bool) *banger.Error {
	when := "later"
	c.mu.Lock()
	if c.busy > 0 {
		when = "in " + seconds(c.busy.Round(time.Second))
	}
	c.mu.Unlock()
	e := banger.Errorf(banger.CodeUnavailable, "registry %s takes no more requests for now", registry)
	if known {
		return e.WithHint("try again %s", when)
	}
	return e.WithHint("try again %s, or log in, for which many registries allow more: %s", when, loginCommand(registry))
}

// loginCommand returns the command that logs in at a registry.
func loginCommand(registry string) string {
	if registry == name.DefaultRegistry {
		return "banger login"
	}
	return "banger login " + registry
}

// faultOf returns the fault in err that says most, or nil if the status of an answer says more.
func faultOf(err error) *fault {
	if f, ok := errors.AsType[*fault](err); ok {
		return f
	}
	if w, ok := errors.AsType[weak](err); ok && statusIn(err) == 0 {
		return w.fault
	}
	return nil
}

// statusIn returns the status of the answer that is the error, or 0.
func statusIn(err error) int {
	if e, ok := errors.AsType[*statusError](err); ok {
		return e.status
	}
	if e, ok := errors.AsType[*transport.Error](err); ok {
		return e.StatusCode
	}
	return 0
}

// inWords returns what any other error means, in our own words.
func inWords(err error) string {
	if e, ok := errors.AsType[*statusError](err); ok {
		return e.Error()
	}
	if e, ok := errors.AsType[*transport.Error](err); ok {
		said := ""
		if len(e.Errors) > 0 {
			said = string(e.Errors[0].Code) + " " + e.Errors[0].Message
		}
		return (&statusError{status: e.StatusCode, text: text.Limit(said, maxErrorText)}).Error()
	}
	switch said := err.Error(); {
	case errors.Is(err, context.DeadlineExceeded):
		return "it takes longer than " + seconds(manifestTimeout)
	case broken(err):
		return "the connection broke off"
	case strings.Contains(said, "realm") || strings.Contains(said, "token-server"): // of the library
		return "it wants the login sent to an address that is not allowed"
	}
	return "its answer cannot be understood"
}
