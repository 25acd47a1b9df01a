package source

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"banger"
)

// openEngine fetches an image from a running docker or podman. Both serve docker's API on a socket of the host.
func openEngine(ctx context.Context, scheme, name, dir string) (Content, error) {
	socket, err := engineSocket(scheme, os.Getenv)
	if err != nil {
		return nil, err
	}
	kind := strings.TrimSuffix(scheme, ":")
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, "GET", "http://engine/images/"+name+"/get", nil)
	if err != nil {
		return nil, err
	}
	res, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return nil, banger.Errorf(banger.CodeUnavailable, "cannot reach %s on %s: %w", kind, socket, reason(err)).
			WithHint("is it running, and may you use its socket?")
	}
	defer res.Body.Close()
	if res.StatusCode == http.StatusNotFound {
		return nil, banger.Errorf(banger.CodeNotFound, "%s has no image %s", kind, name)
	}
	if res.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(res.Body, 300))
		return nil, banger.Errorf(banger.CodeUnavailable, "%s refuses to send image %s: %s: %q", kind, name, res.Status,
			text)
	}
	file, err := spool(res.Body, dir)
	if err != nil {
		return nil, banger.Errorf(banger.CodeUnavailable, "cannot read the image from %s: %w", kind, reason(err))
	}
	c, err := openDockerArchive(ctx, file, dir)
	if err != nil {
		return nil, errors.Join(err, os.Remove(file))
	}
	return &spooled{c, file}, nil
}

// engineSocket finds the socket as the clients of docker and podman do.
func engineSocket(scheme string, env func(string) string) (string, error) {
	variable, own, candidates := "DOCKER_HOST", "docker.sock", []string{"/var/run/docker.sock"}
	if scheme == schemePodman {
		variable, own, candidates = "CONTAINER_HOST", "podman/podman.sock", []string{"/run/podman/podman.sock"}
	}
	if dir := env("XDG_RUNTIME_DIR"); dir != "" {
		candidates = append([]string{filepath.Join(dir, own)}, candidates...)
	}
	if host := env(variable); host != "" {
		path, ok := strings.CutPrefix(host, "unix://")
		if !ok {
			return "", banger.Errorf(banger.CodeInvalid, "%s is %.200q, but only sockets of this host (unix://…) can be used",
				variable, host)
		}
		return path, nil
	}
	for _, c := range candidates {
		if _, err := os.Stat(c); err == nil {
			return c, nil
		}
	}
	return "", banger.Errorf(banger.CodeUnavailable, "there is no socket of %s on this host, looked for at %s",
		strings.TrimSuffix(scheme, ":"), strings.Join(candidates, " and ")).
		WithHint("start it, or set %s", variable)
}

// spooled is an archive in a temporary file.
type spooled struct {
	Content
	file string
}

func (s *spooled) Close() {
	s.Content.Close()
	os.Remove(s.file)
}
