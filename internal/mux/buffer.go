package mux

// smallBuffer is the length in bytes up to which a buffer is made as it is
// needed; longer ones come in classes, each half as long as the next.
const (
	smallBuffer = 16 << 10
	classes     = 4
)

// buffers keeps free ones of each class, a window's worth. The garbage collector
// would drop them, and to make one costs an emulated guest more than what is done
// with it.
var buffers = func() (free [classes]chan []byte) {
	for i := range free {
		free[i] = make(chan []byte, window/classSize(i))
	}
	return free
}()

func classSize(i int) int { return maxPayload >> (classes - 1 - i) }

// getBuffer returns a buffer of length n, at most maxPayload, which costs less
// than twice n.
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

// putBuffer takes a buffer back that nobody uses any more; nil is nothing.
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
