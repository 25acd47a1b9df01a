package api

import (
	"net/http"
	"net/url"

	"banger"
	"banger/internal/api/wire"
	"banger/internal/frame"
)

// exec connects the client with the agent's stream. The frames pass unchanged.
func exec(s *Server, w http.ResponseWriter, req *http.Request) error {
	var e banger.Exec
	if err := wire.Decode(req, &e); err != nil {
		return err
	}
	if err := wantsUpgrade(req, "an exec", wire.UpgradeExec); err != nil {
		return err
	}
	if !e.Main {
		if err := e.Check(); err != nil {
			return err
		}
	}
	stream, err := s.Guests.Exec(req.Context(), req.PathValue("vm"), e)
	if err != nil {
		return err
	}
	return s.handOver(w, req, wire.UpgradeExec, stream)
}

// attach connects the client with the main command.
func attach(s *Server, w http.ResponseWriter, req *http.Request) error {
	size, err := sizeOf(req.URL.Query())
	if err != nil {
		return err
	}
	if err := wantsUpgrade(req, "an attach", wire.UpgradeExec); err != nil {
		return err
	}
	stream, err := s.SessionStreams.AttachMain(req.Context(), req.PathValue("vm"), size)
	if err != nil {
		return err
	}
	return s.handOver(w, req, wire.UpgradeExec, stream)
}

// sizeOf returns the size of a client's terminal that a query says, or zero.
func sizeOf(q url.Values) (size frame.Resize, err error) {
	rows, err := numberOf(q, "rows", 0, 0, 1<<16-1)
	if err != nil {
		return size, err
	}
	cols, err := numberOf(q, "cols", 0, 0, 1<<16-1)
	return frame.Resize{Rows: uint16(rows), Cols: uint16(cols)}, err
}

// fileRequest reads ?op=&path=…, where a path may contain any byte except NUL.
func fileRequest(q url.Values) banger.FileRequest {
	return banger.FileRequest{Op: q.Get("op"), Path: []byte(q.Get("path")), Name: []byte(q.Get("name")),
		Follow: q.Get("follow") == "true",
		Into:   q.Get("into") == "true", Owners: q.Get("owners") == "true", NoXattrs: q.Get("xattrs") == "false"}
}

// files copies from or to a VM. For an extract the client sends frame.Stdin and frame.StdinEOF after status 101, and
// gets frame.Response. For an archive it gets frame.Stdout and frame.Exit. On failure it gets frame.Error.
func files(s *Server, w http.ResponseWriter, req *http.Request) error {
	r := fileRequest(req.URL.Query())
	if err := r.Check(); err != nil {
		return err
	}
	if r.Op == banger.FileStat || r.Op == banger.FileList {
		info, err := s.Guests.StatFile(req.Context(), req.PathValue("vm"), r)
		if err != nil {
			return err
		}
		return wire.WriteJSON(w, info)
	}
	if err := wantsUpgrade(req, "a copy", wire.UpgradeFiles); err != nil {
		return err
	}
	stream, err := s.Guests.Files(req.Context(), req.PathValue("vm"), r)
	if err != nil {
		return err
	}
	return s.handOver(w, req, wire.UpgradeFiles, stream)
}

func ssh(s *Server, w http.ResponseWriter, req *http.Request) error {
	var r banger.SSH
	if err := wire.Decode(req, &r); err != nil {
		return err
	}
	if err := wantsUpgrade(req, "a connection", wire.UpgradeSSH); err != nil {
		return err
	}
	stream, err := s.Guests.SSH(req.Context(), req.PathValue("vm"), r)
	if err != nil {
		return err
	}
	return s.handOver(w, req, wire.UpgradeSSH, stream)
}

func stats(s *Server, w http.ResponseWriter, req *http.Request) error {
	st, err := s.Guests.Stats(req.Context(), req.PathValue("vm"))
	if err != nil {
		return err
	}
	return wire.WriteJSON(w, st)
}

func processes(s *Server, w http.ResponseWriter, req *http.Request) error {
	return wire.WriteList(w,
		func() ([]banger.Process, error) { return s.Guests.Processes(req.Context(), req.PathValue("vm")) })
}
