package api

import (
	"context"
	"io"
	"net/http"

	"banger"
	"banger/internal/api/wire"
)

// Secrets gives VMs their secrets, and takes them back.
type Secrets interface {
	// List returns the secrets of a VM, without their values.
	List(vm string) ([]banger.VMSecret, error)
	Set(ctx context.Context, vm, name string, value []byte) error
	Remove(ctx context.Context, vm, name string) error
}

var secretRoutes = []route{
	{"GET", "/v1/vms/{vm}/secrets", listSecrets, "listSecrets", "The secrets of a VM, without their values", nil, nil,
		[]banger.VMSecret{}},
	{"PUT", "/v1/vms/{vm}/secrets/{secret}", setSecret, "setSecret",
		"Give a VM a secret: a file below " + banger.SecretsDir + " whose content is the body, at most 64 KiB. A VM at " +
			"rest gets it at its next start. No answer, row or log has it",
		nil, content{"application/octet-stream"}, nil},
	{"DELETE", "/v1/vms/{vm}/secrets/{secret}", removeSecret, "removeSecret",
		"Take a secret from a VM. Commands that run keep what they have read", nil, nil, nil},
}

func listSecrets(s *Server, w http.ResponseWriter, req *http.Request) error {
	return wire.WriteList(w, func() ([]banger.VMSecret, error) { return s.Secrets.List(req.PathValue("vm")) })
}

func setSecret(s *Server, w http.ResponseWriter, req *http.Request) error {
	value, err := io.ReadAll(req.Body)
	if err != nil {
		return banger.Errorf(banger.CodeInvalid, "the secret was not received, or has more than %s",
			banger.FormatSize(maxBody)).WithHint("a secret has at most 64 KiB")
	}
	if err := s.Secrets.Set(req.Context(), req.PathValue("vm"), req.PathValue("secret"), value); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func removeSecret(s *Server, w http.ResponseWriter, req *http.Request) error {
	if err := s.Secrets.Remove(req.Context(), req.PathValue("vm"), req.PathValue("secret")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
