package supervisor_test

import (
	"bytes"
	"os"
	"testing"
	"time"

	"banger"
	"banger/internal/frame"
)

// TestFilesAreThoseOfARunningVM: copies work only for running VMs. For a VM at rest, or for an invalid request, no
// copy begins.
func TestFilesAreThoseOfARunningVM(t *testing.T) {
	h := newHost(t)
	s := h.daemon()
	h.run(s, h.spec("box"))
	at := h.path("there")
	check(t, os.WriteFile(at, []byte("content"), 0o640))
	info, err := s.Guests().StatFile(h.ctx(), "box", banger.FileRequest{Op: banger.FileStat, Path: []byte(at)})
	if check(t, err); info.Size != 7 || info.Mode != 0o100640 {
		t.Errorf("it is %+v", info)
	}
	request := banger.FileRequest{Op: banger.FileArchive, Path: []byte(at), Name: []byte("name")}
	conn, err := s.Guests().Files(h.ctx(), "box", request)
	check(t, err)
	defer conn.Close()
	conn.SetReadDeadline(time.Now().Add(patience))
	frames := frame.NewReader(conn)
	var tar []byte
	for {
		typ, p, err := frames.Next()
		if check(t, err); typ != frame.Stdout {
			break
		}
		tar = append(tar, p...)
	}
	if !bytes.Contains(tar, []byte("content")) {
		t.Errorf("the archive has %d bytes", len(tar))
	}
	_, err = s.Guests().Files(h.ctx(), "box",
		banger.FileRequest{Op: banger.FileArchive, Path: []byte(at), Name: []byte("../x")})
	wantCode(t, err, banger.CodeInvalid)
	_, err = s.Stop(h.ctx(), "box", time.Second)
	check(t, err)
	_, err = s.Guests().Files(h.ctx(), "box", request)
	wantCode(t, err, banger.CodeConflict)
	_, err = s.Guests().StatFile(h.ctx(), "nosuch", banger.FileRequest{Op: banger.FileStat, Path: []byte(at)})
	wantCode(t, err, banger.CodeNotFound)
}
