package image

import (
	"context"
	"net"
	"net/http"
	"path/filepath"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"banger"
)

// engine answers docker's API on a socket, with one image.
func engine(t *testing.T, layers ...layerBlob) (socket string) {
	t.Helper()
	archive := filepath.Join(t.TempDir(), "saved.tar")
	if err := tarball.WriteToFile(archive, name.MustParseReference("app:v1"), read(t, ociDir(t, layers...))); err != nil {
		t.Fatal(err)
	}
	socket = filepath.Join(t.TempDir(), "engine.sock")
	ln, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/images/docker.io/library/app:v1/get":
			http.ServeFile(w, r, archive)
		case "/images/docker.io/library/secret:v1/get":
			http.Error(w, "not for you", http.StatusForbidden)
		case "/images/docker.io/library/broken:v1/get":
			w.Write([]byte("half a tar"))
		default:
			http.NotFound(w, r)
		}
	})
	server := &http.Server{Handler: mux}
	go server.Serve(ln) // ends with Close
	t.Cleanup(func() { server.Close() })
	return socket
}

func TestARunningEngineIsASource(t *testing.T) {
	socket := engine(t, packed(gzipped, file("f", "x")))
	for scheme, variable := range map[string]string{"docker-daemon:": "DOCKER_HOST", "podman:": "CONTAINER_HOST"} {
		t.Run(scheme, func(t *testing.T) {
			t.Setenv(variable, "unix://"+socket)
			s := openStore(t)
			img := ensure(t, s, scheme+"app:v1")
			wantListing(t, listing(t, s.RootfsPath(img.Digest)), "\n\t\t/ directory 0755 0:0 "+
				"mtime=00000000:00000000\n\t\t/f regular 0644 0:0 \"x\"\n")
			if img.Reference != scheme+"docker.io/library/app:v1" {
				t.Errorf("it is called %s", img.Reference)
			}
			wantOnly(t, s, img.Digest)
			for ref, code := range map[string]banger.Code{
				"none:v1":   banger.CodeNotFound,
				"secret:v1": banger.CodeUnavailable,
				"broken:v1": banger.CodeInvalid,
			} {
				if _, err := s.Ensure(context.Background(), scheme+ref, "", banger.PullAlways,
					banger.Discard); banger.CodeOf(err) != code {
					t.Errorf("%s: %v", ref, err)
				}
			}
			wantOnly(t, s, img.Digest)
		})
	}
}
