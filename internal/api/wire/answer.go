package wire

import (
	"net/http"

	"banger/internal/text"
)

// WriteError answers with an error.
func WriteError(w http.ResponseWriter, err error) {
	e := NewError(err)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(StatusOf(e.Code))
	text.WriteJSON(w, ErrorBody{Error: e}, "")
}

// WriteJSON answers with v.
func WriteJSON(w http.ResponseWriter, v any) error {
	w.Header().Set("Content-Type", "application/json")
	return text.WriteJSON(w, v, "")
}

// FlushWriter flushes after each write.
type FlushWriter struct{ W http.ResponseWriter }

func (f FlushWriter) Write(p []byte) (int, error) {
	n, err := f.W.Write(p)
	f.W.(http.Flusher).Flush()
	return n, err
}

// WriteList writes an empty list as [], not null.
func WriteList[T any](w http.ResponseWriter, list func() ([]T, error)) error {
	items, err := list()
	if err != nil {
		return err
	}
	if items == nil {
		items = []T{}
	}
	return WriteJSON(w, items)
}
