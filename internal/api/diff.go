package api

import (
	"context"
	"net/http"

	"banger"
	"banger/internal/api/wire"
)

// Comparisons says which files differ between VMs.
type Comparisons interface {
	// Compare emits an event for each file that differs, in the order of the paths.
	Compare(ctx context.Context, c banger.Comparison, emit banger.Emit) (banger.Compared, error)
}

var diffRoutes = []route{
	{"POST", "/v1/diffs", compareVMs, "compareVMs",
		"Say which files differ between two VMs or snapshots of one image, or between one and what it has come from. A " +
			"line with file is one of these, in the order of the paths; the last line has compared. A VM that runs goes on: " +
			"what is compared is its disk at one instant", nil, banger.Comparison{}, progress{}},
}

func compareVMs(s *Server, w http.ResponseWriter, req *http.Request) error {
	var c banger.Comparison
	if err := wire.Decode(req, &c); err != nil {
		return err
	}
	if err := c.Check(); err != nil {
		return err
	}
	return stream(w, func(emit banger.Emit) (banger.Event, error) {
		done, err := s.Comparisons.Compare(req.Context(), c, emit)
		return banger.Event{Compared: &done}, err
	})
}
