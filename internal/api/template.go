package api

import (
	"net/http"

	"banger"
	"banger/internal/api/wire"
)

func listTemplates(s *Server, w http.ResponseWriter, _ *http.Request) error {
	return wire.WriteList(w, s.Templates.List)
}

func pruneTemplates(s *Server, w http.ResponseWriter, req *http.Request) error {
	q := req.URL.Query()
	all, dryRun := q.Get("all") == "true", q.Get("dry_run") == "true"
	return wire.WriteList(w, func() ([]banger.Template, error) { return s.Templates.Prune(all, dryRun) })
}

func removeTemplate(s *Server, w http.ResponseWriter, req *http.Request) error {
	if _, err := s.Templates.Remove(req.PathValue("id")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
