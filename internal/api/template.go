package api

import (
	"context"
	"net/http"
	"net/url"

	"banger"
	"banger/internal/api/wire"
)

func listTemplates(s *Server, w http.ResponseWriter, _ *http.Request) error {
	return wire.WriteList(w, s.Templates.List)
}

func pruneTemplates(s *Server, w http.ResponseWriter, req *http.Request) error {
	all := req.URL.Query().Get("all") == "true"
	return wire.WriteList(w, func() ([]banger.Template, error) { return s.Templates.Prune(all) })
}

func removeTemplate(s *Server, w http.ResponseWriter, req *http.Request) error {
	if _, err := s.Templates.Remove(req.PathValue("id")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// Templates returns the templates from which VMs start, the one that was used last first.
func (c templateClient) Templates(ctx context.Context) (list []banger.Template, err error) {
	return list, c.call(ctx, "GET", "/v1/templates", nil, nil, &list)
}

// PruneTemplates removes the templates from which no VM can start any more or, with all, every template. It returns
// those.
func (c templateClient) PruneTemplates(ctx context.Context, all bool) (removed []banger.Template, err error) {
	query := url.Values{}
	if all {
		query.Set("all", "true")
	}
	return removed, c.call(ctx, "POST", "/v1/templates/prune", query, nil, &removed)
}

// RemoveTemplate removes the template whose id starts with ref.
func (c templateClient) RemoveTemplate(ctx context.Context, ref string) error {
	return c.call(ctx, "DELETE", "/v1/templates/"+ref, nil, nil, nil)
}
