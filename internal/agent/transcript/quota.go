package transcript

import (
	"sync"
	"time"
)

// Quota is the room on the disk that all transcripts of a guest have together, and the room of each.
type Quota struct {
	mu      sync.Mutex // taken before that of a transcript
	all     int64      // bytes
	each    int64      // bytes
	members map[*Transcript]bool
}

// NewQuota returns a quota of all bytes together, and of each bytes for one transcript. Both are at least twice
// SegmentSize.
func NewQuota(all, each int64) *Quota {
	return &Quota{all: max(all, 2*SegmentSize), each: max(each, 2*SegmentSize), members: map[*Transcript]bool{}}
}

func (q *Quota) add(t *Transcript) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.members[t] = true
}

func (q *Quota) remove(t *Transcript) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.members, t)
}

// Set changes the room of all transcripts together. It is kept from the next file on.
func (q *Quota) Set(all int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.all = max(all, 2*SegmentSize)
}

// begin begins a new file for t, if n bytes still need one, once old files have made room for it. Without room, the
// transcript loses what is written.
func (q *Quota) begin(t *Transcript, n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.heldBy(t) > q.each-SegmentSize && q.dropOf(t) {
	}
	for {
		total, largest := int64(0), (*Transcript)(nil)
		most := int64(0)
		for m := range q.members {
			held := q.heldBy(m)
			total += held
			if held > most && q.canDrop(m) {
				largest, most = m, held
			}
		}
		if total+SegmentSize <= q.all {
			break
		}
		if largest == nil || !q.dropOf(largest) {
			t.mu.Lock()
			t.again = time.Now().Add(tryAgain)
			t.mu.Unlock()
			return
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.needsFile(n) {
		t.begin()
	}
}

func (q *Quota) heldBy(t *Transcript) int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.held()
}

func (q *Quota) canDrop(t *Transcript) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.segments) > 1 || len(t.segments) == 1 && t.file == nil
}

func (q *Quota) dropOf(t *Transcript) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.drop()
}
