package banger

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
)

// Code classifies an Error for machines. The API maps it to an HTTP status, and the CLI maps it to an exit code, each
// in one place.
type Code string

// The codes. A new code needs a row in api.statuses.
const (
	CodeInvalid       Code = "invalid"        // the request itself is wrong
	CodeNotFound      Code = "not_found"      // no such VM, image, kernel, file
	CodeConflict      Code = "conflict"       // name taken, wrong state, in use
	CodeUnavailable   Code = "unavailable"    // something we need is absent: registry, kernel, VMM
	CodeNoSpace       Code = "no_space"       // the host's disk is full
	CodeDisk          Code = "disk"           // the host's disk cannot be read or written
	CodeDenied        Code = "denied"         // permission
	CodeTimeout       Code = "timeout"        // a deadline passed
	CodeCanceled      Code = "canceled"       // the caller went away
	CodeVersion       Code = "version"        // client and daemon differ
	CodeNotBuilt      Code = "not_built"      // known by name, but this version does not have it
	CodeGuest         Code = "guest"          // the guest broke the protocol or died
	CodeCannotRun     Code = "cannot_run"     // command found but not executable (exit 126)
	CodeCommandAbsent Code = "command_absent" // command not found (exit 127)
	CodeBadImage      Code = "bad_image"      // an image is damaged, hostile or of a kind we do not take
	CodeInternal      Code = "internal"       // a bug
)

// Error is the only error type that crosses package borders. It says what failed and why (Message, one sentence
// without a full stop) and what to do (Hint).
type Error struct {
	Code    Code   `json:"code"`
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
	Err     error  `json:"-"`
}

// Error returns the sentence that a person reads: message, cause, hint.
func (e *Error) Error() string {
	s := e.Message
	if e.Err != nil {
		if cause := e.Err.Error(); cause != "" {
			s += ": " + cause
		}
	}
	if e.Hint != "" {
		s += " (" + e.Hint + ")"
	}
	return s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Cause returns the kernel's reason in an error of package os, without Go's name of the call and without the path.
func Cause(err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Err
	}
	return err
}

// Errorf makes an Error of the given code. A %w verb sets the cause, which the
// message then already contains.
func Errorf(code Code, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Code: code, Message: err.Error(), Err: hidden(errors.Unwrap(err))}
}

// WithHint sets the hint of e, which says what to do about the error, and returns e itself.
func (e *Error) WithHint(format string, args ...any) *Error {
	e.Hint = fmt.Sprintf(format, args...)
	return e
}

// hiddenCause keeps a cause reachable by errors.Is without printing it twice.
type hiddenCause struct{ error }

func (hiddenCause) Error() string     { return "" }
func (h hiddenCause) Unwrap() error   { return h.error }
func (h hiddenCause) Is(t error) bool { return errors.Is(h.error, t) }

func hidden(err error) error {
	if err == nil {
		return nil
	}
	return hiddenCause{err}
}

// Canceled returns the error for work that was given up, because of cause. Its text has no words of Go.
func Canceled(cause error) *Error {
	if errors.Is(cause, context.DeadlineExceeded) {
		return &Error{Code: CodeCanceled, Message: "given up, because it took too long", Err: hidden(cause)}
	}
	return &Error{Code: CodeCanceled, Message: "canceled", Err: hidden(cause)}
}

// CodeOf returns the code of the first Error in err's chain, or CodeInternal.
func CodeOf(err error) Code {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	return CodeInternal
}
