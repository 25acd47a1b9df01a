package api

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"net/http"

	"banger"
)

// headerAccess carries a banger.RegistryAccess, as the base64 of JSON. It is a header so that no body that is stored or
// shown has a login in it. Without it registries are asked anonymously and directly.
const headerAccess = "Banger-Registry-Access"

// maxAccess is the largest value of headerAccess, in bytes; more than a hundred logins.
const maxAccess = 192 << 10

// reachesOut are the operations in which the daemon may ask a registry or a mirror of packages for its client.
var reachesOut = map[string]bool{
	"createVM": true, "listImages": true, "pullImage": true, "pushImage": true, "pullKernel": true,
}

// setAccess adds an access to a request.
func setAccess(req *http.Request, a banger.RegistryAccess) error {
	data, err := json.Marshal(a)
	if err != nil || string(data) == "{}" {
		return err
	}
	value := base64.StdEncoding.EncodeToString(data)
	if len(value) > maxAccess {
		return banger.Errorf(banger.CodeInvalid, "the logins for this request have %s, but at most %s can be sent",
			banger.FormatSize(int64(len(value))), banger.FormatSize(maxAccess)).
			WithHint("ask for fewer registries at once")
	}
	req.Header.Set(headerAccess, value)
	return nil
}

// takeAccess returns a request whose context has the access that came with it, and takes that out of the headers.
func takeAccess(req *http.Request) (*http.Request, error) {
	value := req.Header.Get(headerAccess)
	if value == "" {
		return req, nil
	}
	req.Header.Del(headerAccess)
	var a banger.RegistryAccess
	data, err := base64.StdEncoding.DecodeString(value)
	if err == nil {
		d := json.NewDecoder(bytes.NewReader(data))
		d.DisallowUnknownFields()
		err = d.Decode(&a)
	}
	if err != nil {
		return nil, banger.Errorf(banger.CodeInvalid, "the header %s is not the base64 of logins and proxies", headerAccess)
	}
	return req.WithContext(banger.WithRegistryAccess(req.Context(), a)), nil
}
