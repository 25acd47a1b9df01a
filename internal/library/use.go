package library

import (
	"cmp"
	"context"
	"sync"

	"banger"
)

// Use returns the image and the kernel that spec asks for, as UseImage and UseKernel do, and prevents the removal of
// both until release is called. A kernel that must be fetched is fetched while the image is. got is called with the
// name of each part when it is there.
func (l *Library) Use(ctx context.Context, spec banger.Spec, by string, emit banger.Emit,
	got func(part string)) (img banger.Image, kern banger.Kernel, release func(), err error) {
	fetch := l.fetchKernel(ctx, spec, emit)
	defer fetch.stop()
	img, releaseImage, err := l.UseImage(ctx, spec.Image, spec.Platform, spec.Pull, by, emit)
	if err != nil {
		return img, kern, nil, err
	}
	got("image")
	name := cmp.Or(spec.Kernel, img.Kernel)
	var releaseKernel func()
	if err = fetch.wait(); err == nil || name != "" {
		kern, releaseKernel, err = l.UseKernel(ctx, name, by, emit)
	}
	if err != nil {
		releaseImage()
		return img, kern, nil, err
	}
	got("kernel")
	return img, kern, func() { releaseImage(); releaseKernel() }, nil
}

// fetch is a kernel that is being fetched beside an image. Its events are held back until the image is there.
type fetch struct {
	cancel context.CancelFunc
	ended  chan struct{}
	err    error // when ended is closed

	emit banger.Emit

	mu   sync.Mutex
	tell bool          // the image is there, so events are told
	held *banger.Event // the last event that was not told, or nil
}

// fetchKernel begins to fetch a kernel if none is there and spec names none. The caller must stop it.
func (l *Library) fetchKernel(ctx context.Context, spec banger.Spec, emit banger.Emit) *fetch {
	ctx, cancel := context.WithCancel(ctx)
	f := &fetch{cancel: cancel, ended: make(chan struct{}), emit: emit}
	if spec.Kernel != "" {
		close(f.ended)
		return f
	}
	go func() { // ends with ctx
		defer close(f.ended)
		_, f.err = l.kernels.Ensure(ctx, "", f.event)
	}()
	return f
}

func (f *fetch) event(e banger.Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.tell {
		f.held = &e
		return
	}
	f.emit(e)
}

// wait returns when the kernel is there, or why it is not. From now on events are told.
func (f *fetch) wait() error {
	f.mu.Lock()
	f.tell = true
	if f.held != nil {
		f.emit(*f.held)
	}
	f.mu.Unlock()
	<-f.ended
	return f.err
}

// stop ends the fetch, and returns when nothing of it is left.
func (f *fetch) stop() {
	f.cancel()
	<-f.ended
}
