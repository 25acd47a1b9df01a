package filecopy

import (
	"testing"

	"banger"
)

func TestWhatACopyLostIsOneLine(t *testing.T) {
	r := banger.CopyReport{Entries: 5, Sockets: 1}
	join(&r, banger.CopyReport{Entries: 7, Bytes: 3, Owners: 2})
	if got, want := Lost(r), "1 socket was left out, 2 owners were not kept"; got != want || r.Entries != 7 ||
		r.Bytes != 3 {
		t.Errorf("%q of %+v", got, r)
	}
	if got := Lost(banger.CopyReport{Entries: 5}); got != "" {
		t.Errorf("%q was lost of all", got)
	}
}
