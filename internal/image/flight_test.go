package image

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"banger"
	"banger/internal/image/source"
)

// counter counts requests by their kind. Requests of blobs wait until the gate is opened.
type counter struct {
	mu     sync.Mutex
	count  map[string]int
	asked  chan struct{} // gets something for each blob asked for
	opened chan struct{}
}

func newCounter() *counter {
	return &counter{count: map[string]int{}, asked: make(chan struct{}, 100), opened: make(chan struct{})}
}

func (c *counter) gate(r *http.Request) {
	c.mu.Lock()
	c.count[r.Method+" "+r.URL.Path]++
	c.mu.Unlock()
	if strings.Contains(r.URL.Path, "/blobs/") {
		c.asked <- struct{}{}
		select {
		case <-c.opened:
		case <-r.Context().Done():
		}
	}
}

// blobs returns how often each blob was asked for.
func (c *counter) blobs() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	blobs := map[string]int{}
	for what, n := range c.count {
		if strings.Contains(what, "GET") && strings.Contains(what, "/blobs/") {
			blobs[what] = n
		}
	}
	return blobs
}

// result is the result of an Ensure in the background.
type result struct {
	img banger.Image
	err error
}

// ensureSoon calls Ensure in the background and returns when it waits or is done.
func ensureSoon(t *testing.T, ctx context.Context, s *Store, ref string) chan result {
	t.Helper()
	name, err := s.Normalize(ref)
	if err != nil {
		t.Fatal(err)
	}
	native, err := source.ParsePlatform("")
	if err != nil {
		t.Fatal(err)
	}
	waiters := func() int {
		if f := s.pulls.Get(pullKey(name, native, banger.RegistryAccessOf(ctx))); f != nil {
			f.Value.mu.Lock()
			defer f.Value.mu.Unlock()
			return len(f.Value.listeners)
		}
		return 0
	}
	before := waiters()
	done := make(chan result, 1)
	go func() {
		img, err := s.Ensure(ctx, ref, "", banger.PullMissing, banger.Discard)
		done <- result{img, err}
	}()
	for end := time.Now().Add(10 * time.Second); waiters() == before; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("Ensure never began to wait")
		}
	}
	return done
}

// of returns the next value of a channel. It fails if that takes long.
func of[T any](t *testing.T, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(20 * time.Second):
		t.Fatal("nothing came within 20 s")
		panic("not reached")
	}
}

func TestCallersShareOneFetch(t *testing.T) {
	c := newCounter()
	ref := serve(t, read(t, ociDir(t, plain(file("f", "1")), plain(file("g", "2")))), c.gate)
	s := openStore(t)
	var callers []chan result
	for range 5 {
		callers = append(callers, ensureSoon(t, context.Background(), s, ref))
	}
	close(c.opened)
	first := of(t, callers[0])
	for _, caller := range callers[1:] {
		if r := of(t, caller); r.err != nil || r.img.Digest != first.img.Digest {
			t.Errorf("one caller got %v %v, another %v", first.img.Digest, first.err, r)
		}
	}
	for blob, n := range c.blobs() {
		if n != 1 {
			t.Errorf("%s was asked for %d times", blob, n)
		}
	}
	if n := len(c.blobs()); n != 3 { // config and two layers
		t.Errorf("%d blobs were read, not 3", n)
	}
	wantOnly(t, s, first.img.Digest)
}

func TestCancelOfOneCallerLeavesTheOthers(t *testing.T) {
	c := newCounter()
	ref := serve(t, read(t, ociDir(t, plain(file("f", "1")))), c.gate)
	s := openStore(t)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	goes := ensureSoon(t, ctx, s, ref)
	stays := ensureSoon(t, context.Background(), s, ref)
	of(t, c.asked)
	cancel()
	if r := of(t, goes); banger.CodeOf(r.err) != banger.CodeCanceled || !errors.Is(r.err, context.Canceled) {
		t.Errorf("the canceled caller got %v", r.err)
	}
	close(c.opened)
	if r := of(t, stays); r.err != nil {
		t.Errorf("the other caller got %v", r.err)
	}
}

func TestCancelOfTheLastCallerLeavesNothing(t *testing.T) {
	for name, blob := range map[string]int{"while the config is read": 1, "while a layer is read": 2} {
		t.Run(name, func(t *testing.T) {
			c := newCounter()
			ref := serve(t, read(t, ociDir(t, plain(file("f", "1")))), c.gate)
			s := openStore(t)
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			caller := ensureSoon(t, ctx, s, ref)
			of(t, c.asked)
			for range blob - 1 {
				c.opened <- struct{}{} // lets one through
				of(t, c.asked)
			}
			cancel()
			r := of(t, caller)
			wantFailure(t, s, r.err, banger.CodeCanceled, "canceled while fetching")
			close(c.opened)
			if img := ensure(t, s, ref); img.Digest == "" {
				t.Error("the next caller got nothing")
			}
		})
	}
}

func TestPullPolicies(t *testing.T) {
	const absent, present = false, true
	for name, c := range map[string]struct {
		pull    string
		there   bool
		code    banger.Code // "" for success
		fetches bool
	}{
		"never, absent":    {banger.PullNever, absent, banger.CodeNotFound, false},
		"never, present":   {banger.PullNever, present, "", false},
		"missing, absent":  {banger.PullMissing, absent, "", true},
		"missing, present": {banger.PullMissing, present, "", false},
		"always, absent":   {banger.PullAlways, absent, "", true},
		"always, present":  {banger.PullAlways, present, "", true},
	} {
		t.Run(name, func(t *testing.T) {
			requests := newCounter()
			close(requests.opened)
			ref := serve(t, read(t, ociDir(t, plain(file("f", "1")))), requests.gate)
			s := openStore(t)
			if c.there {
				ensure(t, s, ref)
			}
			clear(requests.count)
			_, err := s.Ensure(context.Background(), ref, "", c.pull, banger.Discard)
			if c.code == "" && err != nil || c.code != "" && (err == nil || banger.CodeOf(err) != c.code) {
				t.Errorf("the error is %v, not one of code %q", err, c.code)
			}
			if got := len(requests.count) > 0; got != c.fetches {
				t.Errorf("the registry was asked %v", requests.count)
			}
		})
	}
}

// TestPullAlwaysFollowsATag moves a tag; the old image stays until it is removed.
func TestPullAlwaysFollowsATag(t *testing.T) {
	s := openStore(t)
	at := ociDir(t, plain(file("f", "old")))
	old := ensure(t, s, "oci:"+at)
	if err := os.RemoveAll(at); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(ociDir(t, plain(file("f", "new"))), at); err != nil {
		t.Fatal(err)
	}
	if same := ensure(t, s, "oci:"+at); same.Digest != old.Digest {
		t.Errorf("PullMissing fetched again")
	}
	now, err := s.Ensure(context.Background(), "oci:"+at, "", banger.PullAlways, banger.Discard)
	if err != nil || now.Digest == old.Digest {
		t.Fatalf("PullAlways returned %s, %v", now.Digest, err)
	}
	if found, err := s.Find("oci:" + at); err != nil || found.Digest != now.Digest {
		t.Errorf("the reference means %s, %v", found.Digest, err)
	}
	wantOnly(t, s, old.Digest, now.Digest)
}

// TestOpenForgetsUnfinishedWork starts a store where a crashed one worked.
func TestOpenForgetsUnfinishedWork(t *testing.T) {
	s := openStore(t)
	img := ensure(t, s, "oci:"+ociDir(t, plain(file("f", "1"))))
	if err := os.MkdirAll(filepath.Join(s.images.dir, source.TempPrefix+"1", "blobs"), 0o700); err != nil {
		t.Fatal(err)
	}
	halves := []string{refsFile + ".tmp", openFile + ".tmp", filepath.Join("sha256", img.Digest[7:], metaFile+".tmp"),
		filepath.Join("sha256", img.Digest[7:], copyFile)}
	for _, half := range halves {
		if err := os.WriteFile(filepath.Join(filepath.Dir(s.images.dir), half), []byte("hal"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	again, err := Open(filepath.Dir(s.images.dir), Options{})
	if err != nil {
		t.Fatal(err)
	}
	wantOnly(t, again, img.Digest)
	for _, half := range halves {
		if _, err := os.Lstat(filepath.Join(filepath.Dir(s.images.dir), half)); err == nil {
			t.Errorf("%s is left", half)
		}
	}
	if found, err := again.Find(img.Reference); err != nil || found.Digest != img.Digest {
		t.Errorf("after the start %s is %s, %v", img.Reference, found.Digest, err)
	}
}

// TestAListDoesNotFailOfARemoval that happens at the same time.
func TestAListDoesNotFailOfARemoval(t *testing.T) {
	s, ref := openStore(t), "oci:"+ociDir(t, plain(file("f", "1")))
	stays := ensure(t, s, "oci:"+ociDir(t, plain(file("f", "2"))))
	for i := range 300 { // so that a list takes its time
		s.refs.byName[fmt.Sprintf("stays:%d", i)] = reference{Digest: stays.Digest}
	}
	done := make(chan error)
	go func() {
		var err error
		for range 50 {
			_, perr := s.Ensure(context.Background(), ref, "", banger.PullMissing, banger.Discard)
			err = errors.Join(err, perr, s.Remove(ref, noVM))
		}
		done <- err
	}()
	for {
		if _, err := s.List(); err != nil {
			t.Error(err)
			<-done
			return
		}
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
			return
		default:
		}
	}
}

func TestTheLastEventSaysThatTheImageIsReady(t *testing.T) {
	var last banger.Event
	_, err := openStore(t).Ensure(context.Background(), "oci:"+ociDir(t, plain(file("f", "1"))), "", banger.PullMissing,
		func(e banger.Event) { last = e })
	if err != nil || !last.Done || last.Stage != "image" {
		t.Errorf("the last event is %+v, %v", last, err)
	}
}

// TestOtherLoginsShareNothing checks that a caller without login does not get what another one is given at the same
// time, and does not spoil it.
func TestOtherLoginsShareNothing(t *testing.T) {
	r, s := served(t), quickStore(t)
	r.AddImage("a", "v1", layerFor(gzipped, file("f", "1")))
	r.RequireBasic("me", "hush")
	r.Stall(1) // the first pull goes on after a while
	ref := r.Ref("a", "v1")
	with := banger.WithRegistryAccess(context.Background(), banger.RegistryAccess{Logins: []banger.RegistryLogin{
		{Places: []string{r.Addr() + "/a"}, Username: "me", Password: "hush"}}})
	may := ensureSoon(t, with, s, ref)
	_, err := s.Ensure(context.Background(), ref, "", banger.PullAlways, banger.Discard)
	if banger.CodeOf(err) != banger.CodeDenied {
		t.Errorf("without login: %v", err)
	}
	if r := of(t, may); r.err != nil {
		t.Errorf("with the login: %v", r.err)
	}
}
