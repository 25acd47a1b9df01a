package local

import (
	"context"
	"net/http"

	"banger"
	"banger/internal/tree"
)

// maxSide bounds what is answered of each side of a file, in bytes.
const maxSide = 1 << 20

// File is a changed file, before and after.
type File struct {
	Change
	Old *Side `json:"old,omitempty"` // absent if the file was not there
	New *Side `json:"new,omitempty"` // absent if the file is gone
}

// Kinds of sides.
const (
	kindText   = "text"
	kindBinary = "binary"
	kindLarge  = "large"
	kindLink   = "link"
)

// Side is one side of a file. Data is in base64, and is there for text and links.
type Side struct {
	Kind string `json:"kind"` // text, binary, large or link
	Size int64  `json:"size"`
	Data []byte `json:"data,omitempty"`
}

// file answers with both sides of a changed file.
func file(ctx context.Context, h *held, r *http.Request) (f File, err error) {
	path := r.URL.Query().Get("path")
	for _, d := range h.differences {
		if d.Path != path {
			continue
		}
		f.Change = changeOf(d)
		if f.Old, err = sideOf(ctx, h, d.Before); err == nil {
			f.New, err = sideOf(ctx, h, d.After)
		}
		return f, err
	}
	return f, banger.Errorf(banger.CodeNotFound, "%.300s is not among the changed files", tree.Quoted(path)).
		WithHint("look at the workspace again")
}

func sideOf(ctx context.Context, h *held, e tree.Entry) (*Side, error) {
	if e.OID == "" {
		return nil, nil
	}
	content, err := h.capture.Content(ctx, e, maxSide)
	if err != nil {
		return nil, err
	}
	s := &Side{Size: content.Size}
	switch {
	case content.Size > maxSide:
		s.Kind = kindLarge
	case e.Mode == tree.ModeLink:
		s.Kind, s.Data = kindLink, content.Data
	case content.Text:
		s.Kind, s.Data = kindText, content.Data
	default:
		s.Kind = kindBinary
	}
	return s, nil
}
