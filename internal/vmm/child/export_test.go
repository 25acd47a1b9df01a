package child

// Held returns the bytes that a Tail keeps.
func Held(t *Tail) []byte { return t.buf }

var Attributes = attributes
