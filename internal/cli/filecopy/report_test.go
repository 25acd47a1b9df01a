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
	rights := banger.CopyReport{Attributes: 2, Rights: 4}
	if got, want := Lost(rights), "2 extended attributes were not kept, 4 files lost their setuid or setgid bit or "+
		"capabilities; -a keeps them"; got != want {
		t.Errorf("%q of %+v", got, rights)
	}
	if got := Lost(banger.CopyReport{Entries: 5}); got != "" {
		t.Errorf("%q was lost of all", got)
	}
}
