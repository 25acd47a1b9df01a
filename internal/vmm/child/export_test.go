package child

// Held returns what a Tail holds.
func Held(t *Tail) []byte { return t.buf }

var Attributes = attributes
