package work

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"banger"
	"banger/internal/api/client"
	"banger/internal/cli/command"
	"banger/internal/cli/session"
	"banger/internal/cli/workspace"
	"banger/internal/config"
)

// withinBudget returns an error if the user's budget has no room for so many more VMs that run, with so much memory
// each.
func withinBudget(ctx context.Context, c *client.Client, b config.Budget, more int, memory int64) error {
	if b.Running == 0 && b.Bytes() == 0 {
		return nil
	}
	list, err := c.List(ctx, false, nil)
	if err != nil {
		return err
	}
	running, sum, names := 0, int64(0), []string(nil)
	for _, vm := range list {
		if vm.State == banger.StateRunning || vm.State == banger.StatePaused || vm.State == banger.StateStarting {
			running, sum, names = running+1, sum+vm.Spec.Memory, append(names, vm.Name)
		}
	}
	memory *= int64(more)
	var why string
	switch {
	case b.Running > 0 && running+more > b.Running:
		why = fmt.Sprintf("the budget in config.toml has room for %d VMs, and with %d more there would be %d", b.Running,
			more, running+more)
	case b.Bytes() > 0 && sum+memory > b.Bytes():
		why = fmt.Sprintf("the VMs that run have %s of memory, and with %s more the budget in config.toml, %s, is exceeded",
			banger.FormatSize(sum), banger.FormatSize(memory), banger.FormatSize(b.Bytes()))
	default:
		return nil
	}
	hint := "change the budget: banger config edit"
	if len(names) > 0 {
		hint = "park one of them: banger suspend " + strings.Join(names, " or ") + "; or " + hint
	}
	return banger.Errorf(banger.CodeConflict, "%s", why).WithHint("%s", hint)
}

// services starts the sessions that the repository's file wants in its VM, but for those that run already.
func services(ctx context.Context, a *command.App, c *client.Client, vm banger.VM, h home) error {
	if h.project == nil || len(h.project.Services) == 0 {
		return nil
	}
	now, err := c.Sessions(ctx, vm.ID)
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(h.project.Services)) {
		i := slices.IndexFunc(now, func(s banger.Session) bool { return s.Name == name })
		if i >= 0 && now[i].State != banger.SessionEnded {
			continue
		}
		if i >= 0 {
			if err := c.RemoveSession(ctx, vm.ID, name, true); err != nil {
				return err
			}
		}
		s := h.project.Services[name]
		s.Name, s.Command = name, inWorkspace(s.Command)
		if _, err := c.StartSession(ctx, vm.ID, s); err != nil {
			return err
		}
		Say(a, "service "+name+" is started; see: banger session ls "+vm.Name)
	}
	return nil
}

// inWorkspace returns a command of the repository's file, whose directory is below the workspace.
func inWorkspace(e banger.Exec) banger.Exec {
	if e.Dir == "" || e.Dir == "." {
		e.Dir, e.Workspace = "", true
		return e
	}
	e.Dir, e.Workspace = filepath.Join(workspace.Path, e.Dir), false
	return e
}

// maxSynced bounds the files that a VM gets by file_sync.
const maxSynced = 64 << 20

// syncFiles brings the files of the user's configuration into a new VM. A file that is not there is told, and left
// out.
func syncFiles(ctx context.Context, a *command.App, c *client.Client, vm banger.VM, list []config.FileSync) error {
	if len(list) == 0 {
		return nil
	}
	at, err := HomeOf(ctx, c, vm)
	if err != nil {
		return err
	}
	var all bytes.Buffer
	w := tar.NewWriter(&all)
	owners := map[string]string{}
	for _, f := range list {
		from, to := f.Host, f.Guest
		if rest, ok := strings.CutPrefix(from, "~/"); ok {
			from = filepath.Join(os.Getenv("HOME"), rest)
		}
		if rest, ok := strings.CutPrefix(to, "~/"); ok {
			to = filepath.Join(at.Dir, rest)
		}
		err := addSynced(w, from, strings.TrimPrefix(to, "/"), f.Mode, at)
		if errors.Is(err, fs.ErrNotExist) {
			Say(a, f.Host+" is not there, so the VM does not get it")
			continue
		}
		if err == nil && all.Len() > maxSynced {
			err = fmt.Errorf("all files together are larger than %s", banger.FormatSize(maxSynced))
		}
		if err != nil {
			return banger.Errorf(banger.CodeInvalid, "cannot bring %s into the VM: %w", f.Host, banger.Cause(err)).
				WithHint("see file_sync in: banger config edit")
		}
		if f.Owner != "" {
			owners[to] = f.Owner
		}
	}
	err = Send(ctx, a, c, vm, "/", func(out *tar.Writer) error {
		return errors.Join(w.Close(), CopyTar(out, &all, func(*tar.Header) {}))
	})
	if err != nil {
		return err
	}
	return chown(ctx, c, vm, owners)
}

// CopyTar copies the entries of a tar, each with the changes that change makes.
func CopyTar(out *tar.Writer, from io.Reader, change func(*tar.Header)) error {
	for in := tar.NewReader(from); ; {
		h, err := in.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		change(h)
		if err := out.WriteHeader(h); err != nil {
			return err
		}
		if _, err := io.Copy(out, in); err != nil {
			return err
		}
	}
}

// addSynced adds a file or a directory of the host to a tar. Of the links in a directory, those to files become files,
// and others are left out.
func addSynced(w *tar.Writer, from, to, mode string, at Home) error {
	from, err := filepath.EvalSymlinks(from)
	if err != nil {
		return err
	}
	return filepath.WalkDir(from, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rest, err := filepath.Rel(from, name)
		if err != nil {
			return err
		}
		info, err := os.Stat(name)
		if d.Type() == fs.ModeSymlink && (err != nil || !info.Mode().IsRegular()) {
			return nil
		}
		if err != nil || !info.Mode().IsRegular() && !info.IsDir() {
			return err
		}
		h := &tar.Header{Typeflag: tar.TypeReg, Name: filepath.Join(to, rest), Mode: int64(info.Mode().Perm()), Uid: at.UID,
			Gid: at.GID, ModTime: info.ModTime(), Size: info.Size()}
		if info.IsDir() {
			h.Typeflag, h.Size, h.Name = tar.TypeDir, 0, h.Name+"/"
			return w.WriteHeader(h)
		}
		if info.Size() > maxSynced {
			return fmt.Errorf("it is larger than %s", banger.FormatSize(maxSynced))
		}
		if n, err := strconv.ParseInt(mode, 8, 32); err == nil {
			h.Mode = n
		}
		raw, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		h.Size = int64(len(raw))
		if err := w.WriteHeader(h); err != nil {
			return err
		}
		_, err = w.Write(raw)
		return err
	})
}

// chown gives files in the VM to their owners.
func chown(ctx context.Context, c *client.Client, vm banger.VM, owners map[string]string) error {
	for _, path := range slices.Sorted(maps.Keys(owners)) {
		conn, err := c.Exec(ctx, vm.ID, banger.Exec{Args: []string{"chown", "-R", "--", owners[path], path}, User: "0"})
		if err != nil {
			return err
		}
		status, err := session.Run(ctx, conn, session.Stdio{Out: io.Discard, Err: io.Discard}, false, vm.Name, nil)
		if err != nil {
			return err
		}
		if status != 0 {
			return banger.Errorf(banger.CodeInvalid, "%s in the VM cannot be given to %s", path, owners[path]).
				WithHint("see file_sync in: banger config edit")
		}
	}
	return nil
}

// Home is the home directory of a VM's user.
type Home struct {
	Dir      string
	UID, GID int
}

// HomeOf asks the VM for the home directory of its user.
func HomeOf(ctx context.Context, c *client.Client, vm banger.VM) (h Home, err error) {
	conn, err := c.Exec(ctx, vm.ID, banger.Exec{Args: []string{"/bin/sh", "-c", `printf '%s\n' "$HOME"; id -u; id -g`}})
	if err != nil {
		return h, err
	}
	var out bytes.Buffer
	to := &Limited{W: &out, Left: 8 << 10}
	if _, err = session.Run(ctx, conn, session.Stdio{Out: to, Err: io.Discard}, false, vm.Name, nil); err != nil {
		return h, err
	}
	words := strings.Split(out.String(), "\n")
	if len(words) < 3 || !filepath.IsAbs(words[0]) || filepath.Clean(words[0]) != words[0] {
		return h, banger.Errorf(banger.CodeGuest, "the VM does not say where its user's home directory is")
	}
	h.Dir = words[0]
	var uerr, gerr error
	h.UID, uerr = strconv.Atoi(words[1])
	h.GID, gerr = strconv.Atoi(words[2])
	if uerr != nil || gerr != nil || h.UID < 0 || h.GID < 0 {
		return h, banger.Errorf(banger.CodeGuest, "the VM does not say who its user is")
	}
	return h, nil
}

// Limited is a writer that fails when more is written than a VM may say.
type Limited struct {
	W    io.Writer
	Left int // bytes
}

func (l *Limited) Write(p []byte) (int, error) {
	if l.Left -= len(p); l.Left < 0 {
		return 0, errors.New("the VM says too much")
	}
	return l.W.Write(p)
}
