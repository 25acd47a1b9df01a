// Package wire is how requests and answers of the API travel: a client's transport over the daemon's unix socket, the
// form of errors, and what goes along in headers. It also has the bodies and protocols for which both ends need one
// name. The package must not know any route.
package wire

import (
	"net/http"

	"banger"
	"banger/internal/text"
)

// HeaderAPI is the header with the client's API version. It may be absent.
const HeaderAPI = "Banger-API"

// statuses maps error codes to HTTP statuses. Every other code is 500.
var statuses = map[banger.Code]int{
	banger.CodeInvalid:       http.StatusBadRequest,
	banger.CodeNotFound:      http.StatusNotFound,
	banger.CodeConflict:      http.StatusConflict,
	banger.CodeUnavailable:   http.StatusServiceUnavailable,
	banger.CodeNoSpace:       http.StatusInsufficientStorage,
	banger.CodeDenied:        http.StatusForbidden,
	banger.CodeDisk:          http.StatusInternalServerError,
	banger.CodeTimeout:       http.StatusGatewayTimeout,
	banger.CodeCanceled:      499, // the client closed the request
	banger.CodeVersion:       http.StatusUpgradeRequired,
	banger.CodeNotBuilt:      http.StatusNotImplemented,
	banger.CodeBadImage:      http.StatusUnprocessableEntity,
	banger.CodeGuest:         http.StatusBadGateway,
	banger.CodeCannotRun:     http.StatusUnprocessableEntity,
	banger.CodeCommandAbsent: http.StatusUnprocessableEntity,
}

// StatusOf returns the HTTP status of an error code.
func StatusOf(code banger.Code) int {
	if s, ok := statuses[code]; ok {
		return s
	}
	return http.StatusInternalServerError
}

// maxMessage is the maximum number of characters of an error's message, which may contain our text and text from
// elsewhere.
const maxMessage = 2 * text.MaxError

// NewError turns any error into an *Error for transport. Its text includes the cause.
func NewError(err error) *banger.Error {
	code := banger.CodeOf(err)
	if e, ok := err.(*banger.Error); ok {
		flat := *e
		flat.Hint = ""
		return &banger.Error{Code: code, Message: text.Limit(flat.Error(), maxMessage), Hint: text.Limit(e.Hint, maxMessage)}
	}
	return &banger.Error{Code: code, Message: text.Limit(err.Error(), maxMessage)}
}

// ErrorBody is the body of an answer with an error.
type ErrorBody struct {
	Error *banger.Error `json:"error"`
}
