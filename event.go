package banger

import "time"

// Event is one line of progress, streamed as NDJSON by long requests. The last event of a successful request carries
// its result (VM, Image, Images or Kernel). The last event of a failed request carries Error.
type Event struct {
	Time  time.Time `json:"time,omitzero"`
	Stage string    `json:"stage,omitempty"` // one word or two: "pull", "rootfs", "kernel", "boot"
	Text  string    `json:"text,omitempty"`  // what is being done, for a person
	Layer string    `json:"layer,omitempty"` // digest of the layer that the event is about; "" means all layers
	Bytes int64     `json:"bytes,omitempty"` // done so far
	Total int64     `json:"total,omitempty"` // 0 when unknown
	Count int       `json:"count,omitempty"` // things done so far, for example packages
	Of    int       `json:"of,omitempty"`    // how many things there are; 0 when unknown
	Done  bool      `json:"done,omitempty"`  // the stage, or the layer, is finished

	Seconds float64 `json:"seconds,omitempty"` // time that a layer has taken so far

	ID     string  `json:"id,omitempty"` // the VM that is being created; from now on it can be removed
	VM     *VM     `json:"vm,omitempty"`
	VMs    []VM    `json:"vms,omitempty"` // result of a fork
	Image  *Image  `json:"image,omitempty"`
	Images []Image `json:"images,omitempty"` // result of a load
	Kernel *Kernel `json:"kernel,omitempty"`
	Error  *Error  `json:"error,omitempty"`

	File     *FileChange `json:"file,omitempty"`     // one that differs
	Compared *Compared   `json:"compared,omitempty"` // result of a comparison
}

// Emit receives progress. It must not block for long and may be called from
// several goroutines. A nil Emit is not allowed; use Discard.
type Emit func(Event)

// Discard is an Emit that drops everything.
func Discard(Event) {}

// Change is one line of the daemon's event stream: the whole state, a VM that has changed or is new, or a VM that is
// gone.
type Change struct {
	Cursor  string `json:"cursor"` // a client that was cut off goes on behind it
	VM      *VM    `json:"vm,omitempty"`
	Removed string `json:"removed,omitempty"` // the id of a VM that is gone
	State   bool   `json:"state,omitempty"`   // VMs are all there are; what the client knew before is void
	VMs     []VM   `json:"vms,omitempty"`
}
