package api

import (
	"archive/tar"
	"io"
	"mime"
	"net/http"
	"path"
	"strconv"

	"banger"
	"banger/internal/archive"
	"banger/internal/frame"
)

// The type of a file, as st_mode of Linux has it (inode(7)).
const (
	typeMask = 0o170000
	typeFile = 0o100000
	typeDir  = 0o040000
)

// fileContent answers with the bytes of a file, or with a tar of a directory. The guest's bytes are never shown as a
// page: browsers save them. An answer that is cut off is not whole.
func fileContent(s *Server, w http.ResponseWriter, req *http.Request) error {
	at := req.URL.Query().Get("path")
	vm := req.PathValue("vm")
	info, err := s.Guests.StatFile(req.Context(), vm,
		banger.FileRequest{Op: banger.FileStat, Path: []byte(at), Follow: true})
	if err != nil {
		return err
	}
	kind := info.Mode & typeMask
	if kind != typeFile && kind != typeDir {
		return banger.Errorf(banger.CodeInvalid, "%q is neither a file nor a directory", at)
	}
	name := path.Base(path.Clean("/" + at))
	if name == "/" {
		name = "root"
	}
	stream, err := s.Guests.Files(req.Context(), vm,
		banger.FileRequest{Op: banger.FileArchive, Path: []byte(at), Name: []byte(name), Follow: true, NoXattrs: true})
	if err != nil {
		return err
	}
	defer stream.Close()
	var from io.Reader = archive.NewFrames(frame.NewReader(stream), frame.Stdout, frame.Exit)
	h := w.Header()
	h.Set("Content-Type", "application/octet-stream")
	if kind == typeDir {
		name += ".tar"
		h.Set("Content-Type", "application/x-tar")
	} else {
		entries := tar.NewReader(from)
		first, err := entries.Next()
		if err != nil {
			return err
		}
		if first.Typeflag != tar.TypeReg {
			return banger.Errorf(banger.CodeConflict, "%q has changed meanwhile", at)
		}
		from = entries
		h.Set("Content-Length", strconv.FormatInt(first.Size, 10))
	}
	h.Set("Content-Disposition", mime.FormatMediaType("attachment", map[string]string{"filename": name}))
	h.Set("Content-Security-Policy", "default-src 'none'; sandbox")
	h.Set("X-Content-Type-Options", "nosniff")
	if _, err := io.Copy(w, from); err != nil {
		panic(http.ErrAbortHandler) // the client sees that the answer is not whole
	}
	return nil
}
