package api

import (
	"net/url"
	"reflect"
	"testing"

	"banger"
)

// TestAFileRequestSurvivesItsAddress: a path of a VM may contain any byte, and every field of a request survives the
// coding as a URL.
func TestAFileRequestSurvivesItsAddress(t *testing.T) {
	for _, r := range []banger.FileRequest{
		{Op: banger.FileStat, Path: []byte("/etc")},
		{Op: banger.FileArchive, Path: []byte("a b\xff\n&=%+?#/é"), Name: []byte("\xfe ;"), Follow: true, NoXattrs: true},
		{Op: banger.FileExtract, Path: []byte("dir/."), Into: true, Owners: true},
	} {
		q, err := url.ParseQuery(fileQuery(r).Encode())
		if err != nil {
			t.Fatal(err)
		}
		got := fileRequest(q)
		if len(got.Name) == 0 {
			got.Name = nil
		}
		if !reflect.DeepEqual(got, r) {
			t.Errorf("%+v became %+v", r, got)
		}
	}
}
