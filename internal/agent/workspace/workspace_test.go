package workspace

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/frame"
	"banger/internal/guest"
)

// TestALifeOfAWorkspace makes a workspace, changes it, boots, resets, updates and removes it.
func TestALifeOfAWorkspace(t *testing.T) {
	w := newWorld(t)
	var answers bytes.Buffer
	it := w.new("deep/ly/made")
	it.Name = "made"
	image := baseline(t, map[string]string{"file": "one", "dir/in": "two"})
	got, err := w.Prepare(&answers, frame.NewReader(stdin(t, image)), guest.WorkspaceRequest{New: &it, User: "7:8"})
	check(t, err)
	kind, p, err := frame.NewReader(&answers).Next()
	var first banger.Workspace
	if err != nil || kind != frame.Response || json.Unmarshal(p, &first) != nil || first != got {
		t.Errorf("the first answer is frame %d %q, %v", kind, p, err)
	}
	if got.UID != 7 || got.GID != 8 || got.Created.IsZero() || got.Source != it.Source {
		t.Errorf("it is %+v", got)
	}
	at := func(name string) string { return filepath.Join(it.Path, name) }
	if read(t, at("dir/in")) != "two" {
		t.Error("the baseline is not there")
	}
	write(t, at("file"), "changed")
	check(t, os.Remove(at("dir/in")))
	if stored := read(t, filepath.Join(w.dir, it.ID, imageFile)); stored != content(t, image) {
		t.Error("the baseline changed")
	}
	w.boot()
	if list := w.List(); len(list) != 1 || list[0] != got || w.Home() != it.Path {
		t.Fatalf("after a boot there are %+v instead of %+v", list, got)
	}
	if _, err := os.Stat(at("dir/in")); err == nil || read(t, at("file")) != "changed" {
		t.Error("after a boot the changes are gone")
	}
	got, err = w.Update("made", "two", nil)
	if err != nil || got.Baseline != "two" {
		t.Errorf("an update: %+v, %v", got, err)
	}
	got, err = w.Reset("made")
	if err != nil || got.Baseline != "two" || got.InOld != 0 || read(t, at("file")) != "one" {
		t.Errorf("a reset: %+v, %v", got, err)
	}
	w.boot()
	if list := w.List(); len(list) != 1 || list[0].Baseline != "two" || read(t, at("dir/in")) != "two" {
		t.Errorf("after another boot there are %+v", list)
	}
	check(t, w.Remove("made", false))
	w.isEmpty()
	w.boot()
	w.isEmpty()
}

type ws = banger.Workspace

// TestWhatCannotBeMade tries workspaces that are refused or fail, and checks that nothing is left of them.
func TestWhatCannotBeMade(t *testing.T) {
	w := newWorld(t)
	image := baseline(t, nil)
	write(t, w.path("full/file"), "mine")
	write(t, w.path("file"), "mine")
	check(t, os.Symlink("full", w.path("link")))
	gone := stdin(t, image)
	gone.Truncate(gone.Len() - frame.Header) // without the end
	odd := stdin(t, nil)
	check(t, frame.Write(odd, frame.Size, nil))
	wrong := bytes.NewBuffer(nil)
	check(t, frame.Write(wrong, frame.Size, nil))
	for name, tt := range map[string]struct {
		change func(*ws)
		frames *bytes.Buffer
		code   banger.Code
		words  string
	}{
		"no id":            {func(w *ws) { w.ID = "../../../../../../../../../etc/foo" }, nil, banger.CodeInvalid, "id"},
		"a bad name":       {func(w *ws) { w.Name = "a/b" }, nil, banger.CodeInvalid, "name"},
		"a relative path":  {func(w *ws) { w.Path = "work" }, nil, banger.CodeInvalid, "absolute"},
		"a path with dots": {func(w *ws) { w.Path += "/../x" }, nil, banger.CodeInvalid, "clean"},
		"the root":         {func(w *ws) { w.Path = "/" }, nil, banger.CodeInvalid, "whole"},
		"proc":             {func(w *ws) { w.Path = "/proc/x" }, nil, banger.CodeInvalid, "system"},
		"dev itself":       {func(w *ws) { w.Path = "/dev" }, nil, banger.CodeInvalid, "system"},
		"a control":        {func(w *ws) { w.Path += "\n" }, nil, banger.CodeInvalid, "control"},
		"a long path":      {func(w *ws) { w.Path += strings.Repeat("/a", 600) }, nil, banger.CodeInvalid, "long"},
		"no baseline":      {func(w *ws) { w.Baseline = "" }, nil, banger.CodeInvalid, "baseline"},
		"a long baseline":  {func(w *ws) { w.Baseline = strings.Repeat("b", 129) }, nil, banger.CodeInvalid, "baseline"},
		"a wild source":    {func(w *ws) { w.Source = "\x1b[2J" }, nil, banger.CodeInvalid, "source"},
		"files":            {func(b *ws) { b.Path = w.path("full") }, nil, banger.CodeConflict, "files already"},
		"a file":           {func(b *ws) { b.Path = w.path("file/x") }, nil, banger.CodeConflict, "not a directory"},
		"a symlink":        {func(b *ws) { b.Path = w.path("link/x") }, nil, banger.CodeConflict, "not a directory"},
		"a client's end":   {nil, gone, banger.CodeCanceled, "went away"},
		"another frame":    {nil, wrong, banger.CodeInvalid, "frame 4"},
		"nothing":          {nil, odd, banger.CodeInvalid, "the whole baseline"},
		"no file system":   {nil, stdin(t, whole(t, bytes.Repeat([]byte("x"), 3<<20))), banger.CodeGuest, "be mounted"},
	} {
		t.Run(name, func(t *testing.T) {
			it, frames := w.new("box"), tt.frames
			it.Path = w.path("new/box")
			if tt.change != nil {
				tt.change(&it)
			}
			if frames == nil {
				frames = stdin(t, image)
			}
			_, err := w.try(it, frames)
			if banger.CodeOf(err) != tt.code || err == nil || !strings.Contains(err.Error(), tt.words) {
				t.Errorf("the error is %v, %s", err, banger.CodeOf(err))
			}
			if _, err := os.Stat(w.path("new")); err == nil {
				t.Error("the path is left")
			}
			w.isEmpty()
		})
	}
	if read(t, w.path("full/file")) != "mine" {
		t.Error("files are hidden")
	}
	_, err := w.Prepare(&bytes.Buffer{}, frame.NewReader(stdin(t, nil)), guest.WorkspaceRequest{})
	if banger.CodeOf(err) != banger.CodeInvalid {
		t.Errorf("without a workspace: %v", err)
	}
	it := w.new("box")
	_, err = w.Prepare(&bytes.Buffer{}, frame.NewReader(stdin(t, nil)), guest.WorkspaceRequest{New: &it, User: "nonesuch"})
	if banger.CodeOf(err) != banger.CodeCannotRun {
		t.Errorf("of a user who is not there: %v", err)
	}
}

// TestTwoWorkspaces checks that workspaces do not get into each other's way.
func TestTwoWorkspaces(t *testing.T) {
	w := newWorld(t)
	w.make("one", map[string]string{"file": "1"})
	if w.Home() != w.path("one") {
		t.Errorf("commands start in %q", w.Home())
	}
	image := baseline(t, map[string]string{"file": "2"})
	for _, change := range []func(*ws){
		func(b *ws) { b.Name = "one" },
		func(b *ws) { b.ID = id("one") },
		func(b *ws) { b.Path = w.path("one") },
		func(b *ws) { b.Path = w.path("one/in/it") },
		func(b *ws) { b.Path = w.root },
	} {
		it := w.new("two")
		change(&it)
		if _, err := w.try(it, stdin(t, image)); banger.CodeOf(err) != banger.CodeConflict {
			t.Errorf("%+v: %v", it, err)
		}
	}
	w.make("one-more", map[string]string{"file": "2"}) // a name of which the other is a part
	if w.Home() != "" {
		t.Errorf("commands start in %q", w.Home())
	}
	w.make("workspace", nil)
	if w.Home() != w.path("workspace") {
		t.Errorf("commands start in %q", w.Home())
	}
	write(t, w.path("one/file"), "changed")
	write(t, w.path("one-more/file"), "changed")
	if _, err := w.Reset("one"); err != nil {
		t.Error(err)
	}
	w.boot()
	if read(t, w.path("one/file")) != "1" || read(t, w.path("one-more/file")) != "changed" {
		t.Error("a reset took back the wrong changes")
	}
	if list := w.List(); len(list) != 3 || list[0].Name != "workspace" || list[2].Name != "one" {
		t.Errorf("there are %+v", list)
	}
	for _, name := range []string{"one", "one-more", "workspace"} {
		check(t, w.Remove(name, false))
	}
	w.isEmpty()
	for name, err := range map[string]error{"remove": w.Remove("one", true), "reset": second(w.Reset("one")),
		"update": second(w.Update("one", "x", nil)), "changes": second(w.Changes(t.Context(), &bytes.Buffer{},
			frame.NewReader(stdin(t, nil)), guest.WorkspaceRequest{Name: "one"}))} {
		if banger.CodeOf(err) != banger.CodeNotFound {
			t.Errorf("%s of what is gone: %v", name, err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

// TestProcessesInAWorkspace resets and removes a workspace in which a process works.
func TestProcessesInAWorkspace(t *testing.T) {
	w := newWorld(t)
	w.make("box", map[string]string{"file": "one"})
	write(t, w.path("box/own"), "of the old tree")
	in := func() *exec.Cmd {
		cmd := exec.Command("sleep", "1000")
		cmd.Dir = w.path("box")
		check(t, cmd.Start())
		t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
		return cmd
	}
	in()
	open, err := os.Open(w.path("box/own"))
	check(t, err)
	defer open.Close()
	got, err := w.Reset("box")
	if err != nil || got.InOld != 1 {
		t.Errorf("a reset: %+v, %v", got, err)
	}
	text := make([]byte, 20)
	if n, _ := open.Read(text); string(text[:n]) != "of the old tree" {
		t.Errorf("the open file has %q", text[:n])
	}
	if _, err := os.Stat(w.path("box/own")); err == nil {
		t.Error("after a reset the changes are there")
	}
	if entries, _ := os.ReadDir(filepath.Join(w.dir, id("box"))); len(entries) != 4 {
		t.Errorf("the directory has %v", entries)
	}
	busy := in()
	err = w.Remove("box", false)
	if banger.CodeOf(err) != banger.CodeConflict || !strings.Contains(err.Error(), "in use") {
		t.Errorf("a removal: %v", err)
	}
	if read(t, w.path("box/file")) != "one" {
		t.Error("a removal that is refused has an effect")
	}
	check(t, w.Remove("box", true))
	check(t, errors.Join(busy.Process.Kill(), open.Close()))
	if entries, _ := os.ReadDir(w.path("box")); len(entries) > 0 {
		t.Errorf("after a removal there are %v", entries)
	}
}

// TestWhatTheGuestDoesToMounts unmounts a workspace, moves it, and mounts over it.
func TestWhatTheGuestDoesToMounts(t *testing.T) {
	w := newWorld(t)
	w.make("box", map[string]string{"file": "one"})
	check(t, unix.Unmount(w.path("box"), 0))
	if list := w.List(); !strings.Contains(list[0].Error, "unmounted") {
		t.Errorf("it is %+v", list[0])
	}
	_, err := w.Reset("box")
	if list := w.List(); err != nil || list[0].Error != "" || read(t, w.path("box/file")) != "one" {
		t.Errorf("after a reset it is %+v, %v", list[0], err)
	}
	check(t, unix.Mount("tmpfs", w.path("box"), "tmpfs", 0, ""))
	for name, err := range map[string]error{"reset": second(w.Reset("box")), "remove": w.Remove("box", true)} {
		if banger.CodeOf(err) != banger.CodeConflict || !strings.Contains(err.Error(), "something else") {
			t.Errorf("%s: %v", name, err)
		}
	}
	check(t, unix.Unmount(w.path("box"), 0))
	if read(t, w.path("box/file")) != "one" {
		t.Error("it is not there")
	}
	check(t, w.Remove("box", false))
	w.isEmpty()
}

// TestWhatABootFinds breaks what is stored, and boots.
func TestWhatABootFinds(t *testing.T) {
	w := newWorld(t)
	for _, name := range []string{"whole", "torn", "no-image", "elsewhere"} {
		w.make(name, map[string]string{"file": name})
	}
	w.end()
	in := func(name, file string) string { return filepath.Join(w.dir, id(name), file) }
	check(t, os.WriteFile(in("torn", recordFile), []byte("{"), 0o600))
	check(t, os.Truncate(in("no-image", imageFile), 0))
	check(t, os.RemoveAll(w.path("elsewhere")))
	check(t, os.Symlink("/", w.path("elsewhere")))
	write(t, in("whole", "7/upper/old"), "of a reset that was cut off")
	write(t, in("unfinished", imageFile), "half a baseline")
	write(t, in("unfinished", recordFile+".new"), "{")
	write(t, filepath.Join(w.dir, "other/file"), "of somebody else")
	w.boot()
	errs := map[string]string{}
	for _, one := range w.List() {
		errs[one.Name] = one.Error
	}
	torn := "broken-" + id("torn")[:12]
	for name, want := range map[string]string{"whole": "", torn: "record is broken", "no-image": "cannot be mounted",
		"elsewhere": "not a directory"} {
		if got, ok := errs[name]; !ok || want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("the error of %s is %q, %v", name, got, ok)
		}
	}
	if len(errs) != 4 || read(t, w.path("whole/file")) != "whole" || w.Home() != w.path("whole") {
		t.Errorf("there are %v", errs)
	}
	for _, gone := range []string{in("unfinished", ""), in("whole", "7")} {
		if _, err := os.Stat(gone); err == nil {
			t.Errorf("%s is left", gone)
		}
	}
	_, err := w.Changes(t.Context(), &bytes.Buffer{}, frame.NewReader(stdin(t, nil)),
		guest.WorkspaceRequest{Name: "no-image"})
	if banger.CodeOf(err) != banger.CodeConflict {
		t.Errorf("changes of what is not mounted: %v", err)
	}
	check(t, os.Remove(w.path("elsewhere")))
	if _, err := w.Reset("elsewhere"); err != nil || read(t, w.path("elsewhere/file")) != "elsewhere" {
		t.Errorf("a reset does not help: %v", err)
	}
	for _, name := range []string{"whole", torn, "no-image", "elsewhere"} {
		check(t, w.Remove(name, false))
	}
	if entries, err := os.ReadDir(w.dir); len(entries) != 1 || entries[0].Name() != "other" {
		t.Errorf("left are %v, %v", entries, err)
	}
}

// TestAFullDisk makes workspaces for which the disk has no room, before they begin and later.
func TestAFullDisk(t *testing.T) {
	w := newWorld(t)
	for _, size := range []string{"12m", "20m"} {
		disk := filepath.Join(filepath.Dir(w.root), size)
		check(t, os.Mkdir(disk, 0o755))
		check(t, unix.Mount("tmpfs", disk, "tmpfs", 0, "size="+size))
		t.Cleanup(func() { unix.Unmount(disk, unix.MNT_DETACH) })
		w.Manager = New(noModules)
		w.Open(filepath.Join(disk, "workspaces"))
		_, err := w.try(w.new("box"), stdin(t, whole(t, bytes.Repeat([]byte("x"), 24<<20))))
		if banger.CodeOf(err) != banger.CodeNoSpace {
			t.Errorf("with %s the error is %v", size, err)
		}
		w.isEmpty()
		var st unix.Statfs_t
		if err := unix.Statfs(disk, &st); err != nil || st.Bfree+8 < st.Blocks {
			t.Errorf("%d of %d blocks are free, %v", st.Bfree, st.Blocks, err)
		}
	}
}

// TestLoopDevicesComeWithTheirModule checks that the module is loaded where the device is missing, and the error of a
// kernel that has none.
func TestLoopDevicesComeWithTheirModule(t *testing.T) {
	name := filepath.Join(t.TempDir(), "control")
	_, err := openControl(name, noModules)
	if banger.CodeOf(err) != banger.CodeUnavailable || !strings.Contains(err.Error(), "has no loop devices") {
		t.Errorf("the error is %v", err)
	}
	f, err := openControl(name, func(module string) error { return os.WriteFile(name, []byte(module), 0o600) })
	check(t, err)
	defer f.Close()
	if read(t, name) != "loop" {
		t.Errorf("the module %s was loaded", read(t, name))
	}
}

// TestANumberOfADeviceIsUsedAgain: when the guest has unmounted a workspace, the next overlay in the guest may get the
// number of its device. That overlay is another's.
func TestANumberOfADeviceIsUsedAgain(t *testing.T) {
	w := newWorld(t)
	it := w.make("box", map[string]string{"file": "one"})
	held := w.all["box"]
	check(t, unix.Unmount(it.Path, 0))
	other := w.path("other")
	for _, dir := range []string{"lower", "upper", "work", "other"} {
		check(t, os.MkdirAll(w.path(dir), 0o755))
	}
	options := "lowerdir=" + w.path("lower") + ",upperdir=" + w.path("upper") + ",workdir=" + w.path("work")
	check(t, unix.Mount("other", other, "overlay", 0, options))
	defer unix.Unmount(other, unix.MNT_DETACH)
	var st unix.Stat_t
	check(t, unix.Stat(other, &st))
	held.dev = st.Dev // as the kernel may have chosen it
	if len(readMounts().of(held.shown())) > 0 {
		t.Error("another overlay counts as the workspace")
	}
	check(t, w.Remove("box", true))
	write(t, filepath.Join(other, "file"), "x")
	if read(t, w.path("upper/file")) != "x" {
		t.Error("the other overlay was unmounted")
	}
}
