package wire

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"net/http"

	"banger"
)

// HeaderAccess carries a banger.RegistryAccess, as the base64 of JSON. It is a header so that no body that is stored or
// shown has a login in it. Without it registries are asked anonymously and directly.
const HeaderAccess = "Banger-Registry-Access"

// MaxAccess is the largest value of HeaderAccess, in bytes; more than a hundred logins.
const MaxAccess = 192 << 10

// SetAccess adds an access to a request.
func SetAccess(req *http.Request, a banger.RegistryAccess) error {
	data, err := json.Marshal(a)
	if err != nil || string(data) == "{}" {
		return err
	}
	value := base64.StdEncoding.EncodeToString(data)
	if len(value) > MaxAccess {
		return banger.Errorf(banger.CodeInvalid, "the logins for this request have %s, but at most %s can be sent",
			banger.FormatSize(int64(len(value))), banger.FormatSize(MaxAccess)).
			WithHint("ask for fewer registries at once")
	}
	req.Header.Set(HeaderAccess, value)
	return nil
}

// TakeAccess returns a request whose context has the access that came with it, and takes that out of the headers.
func TakeAccess(req *http.Request) (*http.Request, error) {
	value := req.Header.Get(HeaderAccess)
	if value == "" {
		return req, nil
	}
	req.Header.Del(HeaderAccess)
	var a banger.RegistryAccess
	data, err := base64.StdEncoding.DecodeString(value)
	if err == nil {
		d := json.NewDecoder(bytes.NewReader(data))
		d.DisallowUnknownFields()
		err = d.Decode(&a)
	}
	if err != nil {
		return nil, banger.Errorf(banger.CodeInvalid, "the header %s is not the base64 of logins and proxies", HeaderAccess)
	}
	return req.WithContext(banger.WithRegistryAccess(req.Context(), a)), nil
}
