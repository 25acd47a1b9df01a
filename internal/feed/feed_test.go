package feed

import (
	"slices"
	"sync"
	"testing"
)

func TestAReaderGoesOnWhereItWas(t *testing.T) {
	f := New[int](4)
	start := f.Now()
	for i := range 3 {
		f.Publish(i)
	}
	got, cursors, _, ok := f.After(start)
	if !ok || !slices.Equal(got, []int{0, 1, 2}) || cursors[2] != f.Now() {
		t.Errorf("behind the start there are %v, %v, %v", got, cursors, ok)
	}
	if got, _, _, ok := f.After(cursors[1]); !ok || !slices.Equal(got, []int{2}) {
		t.Errorf("behind the second change there are %v, %v", got, ok)
	}
	if got, _, _, ok := f.After(f.Now()); !ok || len(got) != 0 {
		t.Errorf("behind the end there are %v, %v", got, ok)
	}
}

// TestALostPlaceIsSaid covers all cursors behind which changes are missing.
func TestALostPlaceIsSaid(t *testing.T) {
	f := New[int](4)
	start := f.Now()
	for i := range 5 {
		f.Publish(i)
	}
	for name, cursor := range map[string]string{"too old": start, "of another daemon": New[int](4).Now(), "empty": "",
		"from the future": f.cursor(6), "not a number": f.epoch + "-x"} {
		if _, _, _, ok := f.After(cursor); ok {
			t.Errorf("a cursor that is %s is good", name)
		}
	}
	if got, _, _, ok := f.After(f.cursor(1)); !ok || !slices.Equal(got, []int{1, 2, 3, 4}) {
		t.Errorf("the four changes that are kept are %v, %v", got, ok)
	}
}

// TestManyReadersSeeEveryChange lets readers wait while a writer publishes less than is kept.
func TestManyReadersSeeEveryChange(t *testing.T) {
	const changes = 1000
	f := New[int](changes)
	start := f.Now()
	var readers sync.WaitGroup
	for range 8 {
		readers.Go(func() {
			cursor, want := start, 0
			for want < changes {
				got, cursors, fresh, ok := f.After(cursor)
				if !ok {
					t.Error("a reader lost its place")
					return
				}
				for i, n := range got {
					if n != want {
						t.Errorf("a reader sees %d, not %d", n, want)
						return
					}
					want, cursor = want+1, cursors[i]
				}
				if want < changes {
					<-fresh
				}
			}
		})
	}
	for i := range changes {
		f.Publish(i)
	}
	readers.Wait()
}
