package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"

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

// Permanent reports whether another attempt would get the same answer.
func (e *statusError) Permanent() bool { return !passes(e.status) }

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
	p, ok := errors.AsType[interface {
		error
		Permanent() bool
	}](err)
	return ok && p.Permanent()
}

// wrap describes a failure for a person and keeps what a retry needs to know.
func (c *Client) wrap(ctx context.Context, r reference, err error) error {
	if err == nil {
		return nil
	}
	registry, image := r.repo.RegistryStr(), r.repo.RepositoryStr()+":"+r.identifier
	if r.isDigest() {
		image = r.repo.RepositoryStr() + "@" + r.identifier
	}
	if ctx.Err() != nil {
		return banger.Errorf(banger.CodeCanceled, "canceled while asking %s: %w", registry, ctx.Err())
	}
	status := 0
	if e, ok := errors.AsType[*statusError](err); ok {
		status = e.status
	}
	if e, ok := errors.AsType[*transport.Error](err); ok {
		status = e.StatusCode
	}
	switch {
	case banger.CodeOf(err) != banger.CodeInternal:
		return err
	case status == http.StatusNotFound:
		return keep(banger.Errorf(banger.CodeNotFound, "registry %s has no image %s", registry, image).
			WithHint("check name and tag"), err)
	case refuses(status):
		return keep(banger.Errorf(banger.CodeDenied, "registry %s refuses access to %s", registry, image).
			WithHint("check the name, or log in with docker login or podman login"), err)
	}
	if _, ok := errors.AsType[*net.OpError](err); ok && !isPermanent(err) {
		return banger.Errorf(banger.CodeUnavailable, "registry %s cannot be reached: %w", registry, text.Bound(err)).
			WithHint("check the network, or use an image of the catalogue such as debian-bookworm")
	}
	return keep(
		banger.Errorf(banger.CodeUnavailable, "cannot read %s from registry %s: %w", image, registry, text.Bound(err)), err)
}

// keep makes e permanent if cause is.
func keep(e *banger.Error, cause error) error {
	if isPermanent(cause) && !isPermanent(e) {
		return blob.Permanent(e)
	}
	return e
}
