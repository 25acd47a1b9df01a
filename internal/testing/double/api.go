package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
)

// maxPayload is the size of the largest request body, in bytes (HTTP_MAX_PAYLOAD_SIZE).
const maxPayload = 51200

// api is the HTTP server. Like Firecracker's, it answers one request at a time.
type api struct {
	mu sync.Mutex
	vm *microVM
}

func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	body, err := io.ReadAll(io.LimitReader(r.Body, maxPayload+1))
	if err != nil {
		return
	}
	if len(body) > maxPayload {
		answerFault(w, http.StatusBadRequest,
			faultf("Request payload with size %d is larger than the limit of %d allowed by server.", len(body), maxPayload))
		return
	}
	a.vm.logRequest(r.Method, r.URL.Path, body)
	answer, err := a.dispatch(r.Method, r.URL.Path, body)
	switch {
	case err != nil:
		answerFault(w, http.StatusBadRequest, err)
	case answer == nil:
		w.WriteHeader(http.StatusNoContent)
	default:
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(answer)
	}
	if a.vm.fatal {
		http.NewResponseController(w).Flush()
		a.vm.ended <- exitGeneric
	}
}

// faultf returns a fault. Its words are Firecracker's.
func faultf(format string, args ...any) error { return fmt.Errorf(format, args...) }

func answerFault(w http.ResponseWriter, status int, err error) {
	answer, _ := json.Marshal(map[string]string{"fault_message": err.Error()})
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(answer))) // so that the answer is complete when it is flushed
	w.WriteHeader(status)
	w.Write(answer)
}

// dispatch executes the rule for a request and returns the answer's body (parsed_request.rs).
func (a *api) dispatch(method, path string, body []byte) (any, error) {
	switch {
	case method == http.MethodGet && len(body) > 0:
		return nil, faultf("GET request cannot have a body.")
	case method == http.MethodPut && len(body) == 0:
		return nil, faultf("Empty PUT request.")
	case method == http.MethodPatch && len(body) == 0:
		return nil, faultf("Empty PATCH request.")
	}
	if path == os.Getenv("DOUBLE_DIES_AT") { // a fault that tests ask for
		fmt.Fprintln(a.vm.log, "[ERROR] Shutting down VM after intercepting a bad syscall (0)")
		os.Exit(exitBadSyscall)
	}
	if path == os.Getenv("DOUBLE_HANGS_AT") { // a fault that tests ask for
		select {}
	}
	first, id, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	if first == "serial" && before(1, 14, 0) {
		return nil, noSuchRequest(method, first)
	}
	for _, rule := range rules {
		if rule.method != method || rule.path != first && rule.path != first+"/"+id {
			continue
		}
		if rule.named {
			if err := checkID(id); err != nil {
				return nil, err
			}
		} else if rule.path == first && id != "" {
			break
		}
		return rule.do(a.vm, id, body)
	}
	return nil, noSuchRequest(method, first)
}

func noSuchRequest(method, first string) error {
	return faultf("Invalid request method and/or path: %s %s.", method, first)
}

var resourceID = regexp.MustCompile(`^[\pL\pN_]+$`)

func checkID(id string) error {
	switch {
	case id == "":
		return faultf("The ID cannot be empty.")
	case !resourceID.MatchString(id):
		return faultf("API Resource IDs can only contain alphanumeric characters and underscores.")
	}
	return nil
}

// decode decodes a body as strictly as serde does with deny_unknown_fields. It returns a fault for
// an unknown field, a wrong type, or a missing required field.
func decode(body []byte, to any, required ...string) error {
	failed := func(err error) error { return badBody("%w", err) }
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(to); err != nil {
		return failed(err)
	}
	if _, err := d.Token(); err != io.EOF {
		return failed(faultf("trailing characters"))
	}
	var present map[string]json.RawMessage
	if err := json.Unmarshal(body, &present); err != nil {
		return failed(err)
	}
	for _, field := range required {
		if _, ok := present[field]; !ok {
			return failed(faultf("missing field `%s`", field))
		}
	}
	return nil
}

// badBody returns the fault of a body that cannot be decoded.
func badBody(format string, args ...any) error {
	return faultf("An error occurred when deserializing the json body of a request: "+format+".", args...)
}

// oneOf returns a fault if value is not one of words. "" is the default and allowed.
func oneOf(value string, words ...string) error {
	if value == "" {
		return nil
	}
	for _, w := range words {
		if value == w {
			return nil
		}
	}
	return faultf(
		"An error occurred when deserializing the json body of a request: unknown variant `%s`, expected one of %q.", value,
		words)
}
