package flight

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
)

var errWork = errors.New("the work failed")

func number() (*atomic.Int32, error) { return new(atomic.Int32), nil }

func TestCallersShareOnePieceOfWork(t *testing.T) {
	var g Group[*atomic.Int32]
	var begun atomic.Int32
	gate := make(chan struct{})
	run := func(_ context.Context, value *atomic.Int32) error {
		begun.Add(1)
		<-gate
		value.Add(1)
		return errWork
	}
	var callers, wg sync.WaitGroup
	for range 50 {
		callers.Add(1)
		wg.Go(func() {
			f, joined, err := g.Join("key", number, run)
			callers.Done()
			if err != nil || !joined {
				t.Errorf("Join returns %v, %v", joined, err)
				return
			}
			<-f.Done()
			if f.Err() != errWork || f.Value.Load() != 1 {
				t.Errorf("the work ended with %v, and its value is %d", f.Err(), f.Value.Load())
			}
			f.Leave()
		})
	}
	callers.Wait()
	if g.Get("key") == nil || g.Get("other") != nil {
		t.Error("Get does not return the work that is under way")
	}
	close(gate)
	wg.Wait()
	if n := begun.Load(); n != 1 {
		t.Errorf("the work was begun %d times", n)
	}
	if g.Get("key") != nil {
		t.Error("work that has ended is under way")
	}
}

func TestTheLastCallerCancelsTheWork(t *testing.T) {
	var g Group[int]
	begin := func() (int, error) { return 0, nil }
	clean := make(chan struct{})
	run := func(ctx context.Context, _ int) error {
		<-ctx.Done()
		<-clean
		return ctx.Err()
	}
	f, _, err := g.Join("key", begin, run)
	if err != nil {
		t.Fatal(err)
	}
	if _, joined, _ := g.Join("key", begin, run); !joined {
		t.Fatal("the second caller did not join")
	}
	if f.Leave() {
		t.Error("the first of two callers was the last")
	}
	select {
	case <-f.Done():
		t.Fatal("the work ended while a caller waits for it")
	default:
	}
	if !f.Leave() {
		t.Error("the second of two callers was not the last")
	}
	ending, joined, err := g.Join("key", begin, run)
	if joined || err != nil || ending != f {
		t.Errorf("canceled work can be joined: %v, %v", joined, err)
	}
	close(clean)
	<-ending.Done()
	if !errors.Is(f.Err(), context.Canceled) {
		t.Errorf("the work ended with %v", f.Err())
	}
	again, joined, err := g.Join("key", begin, run)
	if again == f || !joined || err != nil {
		t.Errorf("no new work begins: %v, %v", joined, err)
	}
	again.Leave()
	<-again.Done()
}

// TestLeaveAfterTheEnd checks that a caller may leave after the work has ended, while new work has the same key.
func TestLeaveAfterTheEnd(t *testing.T) {
	var g Group[*atomic.Int32]
	first, _, _ := g.Join("key", number, func(context.Context, *atomic.Int32) error { return nil })
	<-first.Done()
	gate := make(chan struct{})
	second, _, _ := g.Join("key", number, func(ctx context.Context, _ *atomic.Int32) error {
		<-gate
		return ctx.Err()
	})
	if !first.Leave() {
		t.Error("the only caller was not the last")
	}
	close(gate)
	<-second.Done()
	if second.Err() != nil {
		t.Errorf("the new work ended with %v", second.Err())
	}
	second.Leave()
}

func TestWorkThatCannotBegin(t *testing.T) {
	var g Group[int]
	f, joined, err := g.Join("key", func() (int, error) { return 0, errWork },
		func(context.Context, int) error { t.Error("it ran"); return nil })
	if f != nil || joined || err != errWork || g.Get("key") != nil {
		t.Errorf("Join returns %v, %v, %v", f, joined, err)
	}
}
