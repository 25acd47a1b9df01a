package agent

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"banger"
	"banger/internal/api/client"
	"banger/internal/blob"
	"banger/internal/cli/command"
	"banger/internal/cli/filecopy"
	"banger/internal/cli/render"
	"banger/internal/cli/work"
	"banger/internal/private"
	"banger/internal/recipe"
)

// kept is what an agent keeps in its home directory to be logged in: a tar on this host, whose names are below the
// home directory. The host never unpacks it.
type kept struct{ path string }

// maxKept bounds what a VM can make this host keep.
const maxKept = 16 << 20

func keptOf(a *command.App, name string) kept {
	return kept{filepath.Join(a.Paths.State, "agents", name+".tar")}
}

func (k kept) any() bool {
	_, err := os.Stat(k.path)
	return err == nil
}

// restore brings what is kept into a VM.
func (k kept) restore(ctx context.Context, a *command.App, c *client.Client, vm banger.VM) error {
	raw, err := os.ReadFile(k.path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return banger.Errorf(banger.CodeUnavailable, "cannot read the login of the agent in %s: %w", k.path,
			banger.Cause(err))
	}
	home, err := work.HomeOf(ctx, c, vm)
	if err != nil {
		return err
	}
	return work.Send(ctx, a, c, vm, home.Dir, func(w *tar.Writer) error {
		return work.CopyTar(w, bytes.NewReader(raw), func(h *tar.Header) { h.Uid, h.Gid = home.UID, home.GID })
	})
}

// save keeps what an agent has in a VM now. If it has none of its files, what was kept before stays.
func (k kept) save(ctx context.Context, c *client.Client, vm banger.VM, r recipe.Recipe) error {
	raw, _, err := take(ctx, c, vm, r)
	if err != nil || raw == nil {
		return err
	}
	if err := private.Make(filepath.Dir(k.path), 0o700); err != nil {
		return banger.Errorf(banger.CodeUnavailable, "cannot make the directory %s: %w", filepath.Dir(k.path),
			banger.Cause(err))
	}
	err = blob.WriteFile(k.path, 0o600, func(w io.Writer) error {
		_, err := w.Write(raw)
		return err
	})
	if err != nil {
		return banger.Errorf(banger.CodeUnavailable, "cannot keep the login of the agent in %s: %w", k.path,
			banger.Cause(err))
	}
	return nil
}

// gather keeps what the VMs of an agent have that run, all but a new one, if one has a later login than this host: a
// session that its user has left may have renewed it.
func (k kept) gather(ctx context.Context, c *client.Client, r recipe.Recipe, name string, fresh banger.VM) {
	latest := time.Time{}
	if st, err := os.Stat(k.path); err == nil {
		latest = st.ModTime()
	}
	vms, err := c.List(ctx, false, []string{"label=" + work.LabelAgent + "=" + name})
	if err != nil {
		return
	}
	for _, vm := range vms {
		if vm.State != banger.StateRunning || vm.ID == fresh.ID {
			continue
		}
		if _, changed, err := take(ctx, c, vm, r); err == nil && changed.After(latest) && k.save(ctx, c, vm, r) == nil {
			latest = changed
		}
	}
}

// take returns the files of a recipe that an agent has in a VM as a tar, or nil, and when the latest was changed.
func take(ctx context.Context, c *client.Client, vm banger.VM, r recipe.Recipe) (raw []byte, latest time.Time,
	err error) {
	home, err := work.HomeOf(ctx, c, vm)
	if err != nil {
		return nil, latest, err
	}
	var all bytes.Buffer
	w := tar.NewWriter(&all)
	found, made := false, map[string]bool{".": true}
	for _, name := range r.Keep {
		one, err := read(ctx, c, vm, path.Join(home.Dir, name))
		if banger.CodeOf(err) == banger.CodeNotFound {
			continue
		}
		if err != nil {
			return nil, latest, err
		}
		if err := parents(w, path.Dir(name), made); err != nil {
			return nil, latest, err
		}
		for in := tar.NewReader(bytes.NewReader(one)); ; {
			h, err := in.Next()
			if err != nil {
				break
			}
			ok, err := add(w, h, in, name)
			if err != nil {
				return nil, latest, err
			}
			if found = found || ok; ok && h.ModTime.After(latest) {
				latest = h.ModTime
			}
		}
	}
	if err := w.Close(); err != nil || !found {
		return nil, latest, err
	}
	return all.Bytes(), latest, nil
}

// parents adds the directory dir and those above it, once.
func parents(w *tar.Writer, dir string, made map[string]bool) error {
	if made[dir] {
		return nil
	}
	made[dir] = true
	if err := parents(w, path.Dir(dir), made); err != nil {
		return err
	}
	return w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o700})
}

// add adds one entry of the tar of the file or directory name. Only files and directories are kept.
func add(w *tar.Writer, h *tar.Header, in io.Reader, name string) (bool, error) {
	_, rest, _ := strings.Cut(path.Clean(h.Name), "/")
	full := path.Join(name, rest)
	if full != name && !strings.HasPrefix(full, name+"/") || h.Typeflag != tar.TypeReg && h.Typeflag != tar.TypeDir {
		return false, nil
	}
	out := &tar.Header{Typeflag: h.Typeflag, Name: full, Mode: h.Mode & 0o700, Size: h.Size, ModTime: h.ModTime}
	if err := w.WriteHeader(out); err != nil {
		return false, err
	}
	if h.Typeflag == tar.TypeDir {
		return false, nil
	}
	_, err := io.Copy(w, in)
	return true, err
}

// read returns the tar of one file or directory of a VM.
func read(ctx context.Context, c *client.Client, vm banger.VM, name string) ([]byte, error) {
	places, err := filecopy.ParsePlaces(vm.ID+":"+name, "-", false, false)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	p := render.NewProgress(io.Discard, true)
	defer p.Close()
	_, err = filecopy.Copy{Client: c, Stdout: &work.Limited{W: &out, Left: maxKept}, Archive: true,
		Patience: filecopy.Patience, Progress: p}.Run(ctx, places)
	return out.Bytes(), err
}
