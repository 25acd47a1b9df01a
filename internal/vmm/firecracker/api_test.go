package firecracker

import (
	"cmp"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
)

// described is a definition in the API description.
type described struct {
	Required   []string
	Properties map[string]struct {
		Type  string
		Ref   string `yaml:"$ref"`
		Enum  []string
		Items struct {
			Ref string `yaml:"$ref"`
		}
	}
}

// description returns Firecracker's own API description, which FIRECRACKER_API_FILE can replace by that of another
// release.
func description(t *testing.T) (d struct {
	Info        struct{ Version string }
	Paths       map[string]map[string]any
	Definitions map[string]described
}) {
	t.Helper()
	data, err := os.ReadFile(cmp.Or(os.Getenv("FIRECRACKER_API_FILE"), "testdata/firecracker-v1.16.1.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(data, &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// TestTheAPIHasNotDrifted compares our types with the description: each field exists there with the
// same type, required fields are always sent, and our values of enumerations exist.
func TestTheAPIHasNotDrifted(t *testing.T) {
	d := description(t)
	for name, v := range map[string]any{
		"BootSource":           BootSource{},
		"MachineConfiguration": MachineConfiguration{},
		"Drive":                Drive{},
		"NetworkInterface":     NetworkInterface{},
		"Vsock":                Vsock{},
		"Balloon":              Balloon{},
		"EntropyDevice":        EntropyDevice{},
		"SerialDevice":         SerialDevice{},
		"TokenBucket":          TokenBucket{},
		"Logger":               Logger{}, "Metrics": Metrics{}, "InstanceActionInfo": InstanceActionInfo{}, "Vm": VM{},
		"SnapshotCreateParams": SnapshotCreateParams{},
		"SnapshotLoadParams":   SnapshotLoadParams{},
		"MemoryBackend":        MemoryBackend{},
		"NetworkOverride":      NetworkOverride{},
		"VsockOverride":        VsockOverride{},
		"InstanceInfo":         InstanceInfo{},
		"Error":                Error{},
	} {
		t.Run(name, func(t *testing.T) {
			def, ok := d.Definitions[name]
			if !ok {
				t.Fatal("the description has no such definition")
			}
			compare(t, reflect.TypeOf(v), def)
		})
	}
	for where, words := range enums {
		name, property, _ := strings.Cut(where, ".")
		for _, w := range words {
			if !slices.Contains(d.Definitions[name].Properties[property].Enum, w) {
				t.Errorf("%s knows %q, not %q", where, d.Definitions[name].Properties[property].Enum, w)
			}
		}
	}
}

func compare(t *testing.T, typ reflect.Type, def described) {
	sent := map[string]bool{}
	for f := range fieldsOf(typ) {
		name, rest, _ := strings.Cut(f.Tag.Get("json"), ",")
		sent[name] = rest == ""
		p, ok := def.Properties[name]
		if !ok {
			t.Errorf("there is no property %s", name)
			continue
		}
		ref := strings.TrimPrefix(p.Ref, "#/definitions/")
		ok = false
		switch f.Type.Kind() {
		case reflect.String:
			ok = p.Type == "string"
		case reflect.Bool:
			ok = p.Type == "boolean"
		case reflect.Int, reflect.Int64:
			ok = p.Type == "integer"
		case reflect.Pointer:
			ok = ref == f.Type.Elem().Name()
		case reflect.Slice:
			ok = p.Type == "array" && strings.TrimPrefix(p.Items.Ref, "#/definitions/") == f.Type.Elem().Name()
		}
		if !ok {
			t.Errorf("property %s is %s%s, not our %s", name, p.Type, ref, f.Type)
		}
	}
	for _, name := range def.Required {
		if always, ok := sent[name]; !ok || !always {
			t.Errorf("property %s is required, and we do not always send it", name)
		}
	}
}

func fieldsOf(t reflect.Type) func(func(reflect.StructField) bool) {
	return func(yield func(reflect.StructField) bool) {
		for i := range t.NumField() {
			if !yield(t.Field(i)) {
				return
			}
		}
	}
}

// TestTheCallsExist: each call that boots, pauses or restores is one of the description's.
func TestTheCallsExist(t *testing.T) {
	d := description(t)
	c := plain()
	calls := bootRequests(c, version{1, 16, 1}, options{cpuTemplate: []byte("{}")})
	calls = append(calls, request{"PATCH", "/vm", nil}, request{"GET", "/", nil}, request{"GET", "/version", nil},
		request{"PUT", "/snapshot/create", nil}, request{"PUT", "/snapshot/load", nil})
	for _, r := range calls {
		path := r.path
		for resource, name := range map[string]string{"/drives/": "{drive_id}", "/network-interfaces/": "{iface_id}"} {
			if strings.HasPrefix(path, resource) {
				path = resource + name
			}
		}
		if _, ok := d.Paths[path][strings.ToLower(r.method)]; !ok {
			t.Errorf("the description has no %s %s", r.method, path)
		}
	}
}
