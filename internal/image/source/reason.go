package source

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"syscall"

	"banger"
)

// reason returns why a file, an archive or a socket cannot be read, in our own words or in those of the kernel. It
// keeps err as the cause.
func reason(err error) error {
	said := ""
	path, hasPath := errors.AsType[*fs.PathError](err)
	number, hasNumber := errors.AsType[syscall.Errno](err)
	_, ours := errors.AsType[*banger.Error](err)
	switch {
	case ours:
		return err
	case hasPath && hasNumber:
		said = path.Path + ": " + number.Error()
	case hasNumber:
		said = number.Error()
	case hasPath && errors.Is(err, fs.ErrNotExist): // in an archive
		said = "there is no " + path.Path
	case errors.Is(err, tar.ErrHeader):
		said = "it is not a tar"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		said = "it ends too early"
	default:
		return err
	}
	return because{said, err}
}

// notValid returns why data are not what they should be, where err is of package encoding/json or of a type that it
// decodes. It keeps err as the cause.
func notValid(err error) error {
	said := "a value in it has another form than it must have"
	if e, ok := errors.AsType[*json.SyntaxError](err); ok {
		said = fmt.Sprintf("it is not JSON, see byte %d", e.Offset)
	}
	if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok && e.Field != "" {
		said = fmt.Sprintf("%.100q has a %.100s as its value, which is of another kind than it must be", e.Field, e.Value)
	}
	return because{said, err}
}

// because is an error with a text of ours for its cause.
type because struct {
	said string
	err  error
}

func (b because) Error() string { return b.said }
func (b because) Unwrap() error { return b.err }
