package api

import (
	"context"
	"net/http"

	"banger"
)

func (s *Server) stats(w http.ResponseWriter, req *http.Request) error {
	st, err := s.Guests.Stats(req.Context(), req.PathValue("vm"))
	if err != nil {
		return err
	}
	return writeJSON(w, st)
}

// Stats returns what a running VM has used.
func (c *Client) Stats(ctx context.Context, ref string) (st banger.Stats, err error) {
	return st, c.call(ctx, "GET", vmPath(ref, "stats"), nil, nil, &st)
}
