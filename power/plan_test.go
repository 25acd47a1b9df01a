//go:build power

package power

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// model is what a client expects to exist: names, and what it knows of each.
type model map[string]string

// step is one request of a client, and its effect on the model.
type step struct {
	text  string
	do    func(context.Context, *daemon) error
	apply func(model)
}

// only returns the error of a request whose answer is not needed.
func only[T any](_ T, err error) error { return err }

// kind is a kind of work.
type kind interface {
	name() string
	// prepare makes, below dir, what the work needs and what results are compared with.
	prepare(t *testing.T, dir string, seed uint64) world
	// begin adds to a new daemon what all clients need.
	begin(t *testing.T, b *daemon, w world)
	// next chooses a client's next step.
	next(dice *rand.Rand, w world, client int, m model) step
	// lies checks, before a daemon does, the files that are listed as good.
	lies(state string, w world, before, after []model) error
	// look returns what the daemon reports.
	look(ctx context.Context, b *daemon) (model, error)
	// use uses a part of it.
	use(ctx context.Context, b *daemon, w world) error
}

// planned is all steps of a client, and the model after each number of steps.
type planned struct {
	steps  []step
	states []model
}

// plan returns the same steps for the same seed.
func plan(k kind, w world, seed uint64, client, steps int) planned {
	dice := rand.New(rand.NewPCG(seed, 100+uint64(client)))
	p := planned{states: []model{{}}}
	for i := range steps {
		s := k.next(dice, w, client, p.states[i])
		m := maps.Clone(p.states[i])
		s.apply(m)
		p.steps, p.states = append(p.steps, s), append(p.states, m)
	}
	return p
}

var ownerRE = regexp.MustCompile(`\bc([0-9])[-/]`)

// of returns the part of a model that belongs to a client. The distribution's kernel belongs to the
// first client.
func (m model) of(client int) model {
	own := model{}
	for name, value := range m {
		owner := ownerRE.FindStringSubmatch(name)
		if owner != nil && owner[1] == fmt.Sprint(client) || client == 0 && strings.Contains(name, debianKernel) {
			own[name] = value
		}
	}
	return own
}

// difference describes how two models differ.
func (m model) difference(want model) string {
	var list []string
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if have, ok := m[name]; !ok {
			list = append(list, name+" is missing")
		} else if have != want[name] {
			list = append(list, fmt.Sprintf("%s is %q, not %q", name, have, want[name]))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(m)) {
		if _, ok := want[name]; !ok {
			list = append(list, name+" is there")
		}
	}
	return strings.Join(list, ", ")
}

// examine mounts the disk in place, as the kernel does after a power cut, starts a daemon on it,
// and returns what is wrong.
func examine(t *testing.T, k kind, w world, plans []planned, acknowledged [clients]int, place string) (err error) {
	image, mnt := filepath.Join(place, "disk.img"), filepath.Join(place, "mnt")
	if err := os.Mkdir(mnt, 0o700); err != nil {
		return err
	}
	if _, err := tool("mount", "-t", "ext4", "-o", "loop", image, mnt); err != nil {
		return err
	}
	defer func() {
		uerr := unmount(image, mnt)
		_, ferr := tool("e2fsck", "-fn", image)
		err = errors.Join(err, uerr, ferr)
	}()
	// The step that was running at the cut may be done or not.
	before, after := make([]model, clients), make([]model, clients)
	for client, n := range acknowledged {
		before[client] = plans[client].states[n]
		after[client] = plans[client].states[min(n+1, len(plans[client].steps))]
	}
	state := filepath.Join(mnt, "s")
	err = k.lies(state, w, before, after)
	b, serr := startAfterCut(state)
	if serr != nil {
		return errors.Join(err, serr)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	found, lerr := k.look(ctx, b)
	err = errors.Join(err, lerr)
	for client := range clients {
		have := found.of(client)
		if maps.Equal(have, before[client]) || maps.Equal(have, after[client]) || lerr != nil {
			continue
		}
		err = errors.Join(err, fmt.Errorf("of client %d, %s; its next step was %s", client, have.difference(before[client]),
			nextStep(plans[client], acknowledged[client])))
	}
	return errors.Join(err, wantSwept(state), k.use(ctx, b, w), b.end())
}

// unmount returns when the file system is written to its image and closed. A process that was just
// being started may keep a file of it open for a moment, and there is no event for its end.
func unmount(image, mnt string) error {
	if _, err := tool("umount", "-l", mnt); err != nil {
		return err
	}
	for limit := time.Now().Add(patience); ; time.Sleep(2 * time.Millisecond) {
		open := false
		devices, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
		for _, d := range devices {
			file, err := os.ReadFile(d)
			open = open || err == nil && strings.TrimSpace(string(file)) == image
		}
		if err != nil || !open {
			return err
		}
		if time.Now().After(limit) {
			return fmt.Errorf("%s is still mounted after %v", image, patience)
		}
	}
}

func nextStep(p planned, n int) string {
	if n == len(p.steps) {
		return "none"
	}
	return p.steps[n].text
}

// wantSwept returns an error if there are files that were only partly written when the power
// failed.
func wantSwept(state string) error {
	return filepath.WalkDir(state, func(path string, d os.DirEntry, err error) error {
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		name := filepath.Base(path)
		temporary := strings.HasPrefix(name, ".banger-") && filepath.Base(filepath.Dir(path)) != "ssh" || name == ".copy"
		if strings.HasPrefix(name, ".tmp-") || strings.HasPrefix(name, "put-") || strings.HasSuffix(name, ".tmp") ||
			temporary || name == "lost" {
			return fmt.Errorf("%s is left", path)
		}
		return nil
	})
}
