package mux

// smallBuffer is the length in bytes up to which buffers are not reused. Longer buffers come in classes, each twice
// as long as the one before.
const (
	smallBuffer = 16 << 10
	classes     = 4
)

// buffers keeps free buffers of each class, together as long as a window. The garbage collector would drop them, and
// making a buffer costs an emulated guest more than using it.
var buffers = func() (free [classes]chan []byte) {
	for i := range free {
		free[i] = make(chan []byte, window/classSize(i))
	}
	return free
}()

func classSize(i int) int { return maxPayload >> (classes - 1 - i) }

// getBuffer returns a buffer of length n, at most maxPayload. It takes less than twice n of memory.
func getBuffer(n int) []byte {
	if n <= smallBuffer {
		return make([]byte, n)
	}
	i := 0
	for classSize(i) < n {
		i++
	}
	select {
	case b := <-buffers[i]:
		return b[:n]
	default:
		return make([]byte, n, classSize(i))
	}
}

// putBuffer takes back a buffer that is no longer used. b may be nil.
func putBuffer(b []byte) {
	for i := range buffers {
		if cap(b) == classSize(i) {
			select {
			case buffers[i] <- b:
			default:
			}
		}
	}
}
