package api

import (
	"bytes"
	"encoding"
	"encoding/json"
	"flag"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"banger"
	"banger/internal/api/wire"
	"banger/internal/usage"
)

var update = flag.Bool("update", false, "write openapi.json again")

// TestTheOpenAPIFileIsGenerated makes openapi.json from the routes, the nouns and their comments, and compares it with
// the file. After a change run: go test ./internal/api -run TestTheOpenAPIFileIsGenerated -update
func TestTheOpenAPIFileIsGenerated(t *testing.T) {
	want := generate(t)
	if *update {
		if err := os.WriteFile("openapi.json", want, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if !bytes.Equal(openAPI, want) {
		t.Error("openapi.json is not what the routes and nouns say; see the comment of this test")
	}
}

// constraints are what the types of Go do not say.
var constraints = map[string]object{
	"Spec.name":           {"pattern": "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"},
	"Spec.pull":           {"enum": []string{banger.PullMissing, banger.PullAlways, banger.PullNever}},
	"Spec.vmm":            {"enum": []string{banger.VMMAuto, banger.VMMFirecracker, banger.VMMQEMU}},
	"Spec.cpus":           {"minimum": 1, "maximum": banger.MaxCPUs},
	"Spec.cpu_model":      {"maxLength": 512},
	"RestartPolicy.name":  {"enum": []string{banger.RestartNo, banger.RestartOnFailure, banger.RestartAlways}},
	"Timer.action":        {"enum": []string{banger.ActionStop, banger.ActionRemove, banger.ActionSuspend}},
	"Spec.warm":           {"enum": []string{banger.WarmAuto, banger.WarmNever, banger.WarmOnly, banger.WarmBooted}},
	"Spec.init":           {"enum": []string{banger.InitAuto, banger.InitAgent, banger.InitImage}},
	"OnceRequest.seconds": {"minimum": 1, "maximum": 3600},
}

// required lists the fields that a request must have. For other types, those are required that are always there.
var required = map[string][]string{
	"Spec": {"image"}, "Exec": {"args"}, "SSH": {}, "Forward": {"guest_port"}, "Policy": {}, "Rule": {},
	"Network":       {"name"},
	"ImportRequest": {}, "CommitRequest": {"target"}, "CreateRequest": {"image"},
}

type object = map[string]any

type generator struct {
	schemas  object
	comments map[string]string // of fields, by "Type.Field", and of types, by "Type"
}

func generate(t *testing.T) []byte {
	t.Helper()
	g := generator{object{}, comments(t, "../..", ".", "wire", "../usage")}
	delete(g.comments, "ErrorBody") // the document calls it Failure, and its comment does not
	g.schema(reflect.TypeFor[wire.ErrorBody]())
	paths := object{}
	for _, r := range routes {
		item, ok := paths[r.path].(object)
		if !ok {
			item = object{}
			paths[r.path] = item
		}
		item[strings.ToLower(r.method)] = g.operation(r)
	}
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	e.SetIndent("", " ")
	err := e.Encode(object{
		"openapi": "3.0.3",
		"info": object{"title": "banger", "version": "1", "description": "The daemon's API on its unix socket, " +
			"for example: curl --unix-socket /run/banger/api.sock http://banger/v1/vms"},
		"servers":    []object{{"url": "http://banger"}},
		"paths":      paths,
		"components": object{"schemas": g.schemas},
	})
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

var pathParameter = regexp.MustCompile(`\{(\w+)\}`)

func (g generator) operation(r route) object {
	params := []object{}
	for _, m := range pathParameter.FindAllStringSubmatch(r.path, -1) {
		params = append(params, object{"name": m[1], "in": "path", "required": true, "schema": object{"type": "string"}})
	}
	for _, p := range r.query {
		params = append(params, object{"name": p.name, "in": "query", "required": p.required, "description": p.about,
			"schema": g.schema(reflect.TypeOf(p.zero))})
	}
	if reachesOut[r.name] {
		g.schema(reflect.TypeFor[banger.RegistryAccess]())
		params = append(params, object{"name": wire.HeaderAccess, "in": "header", "required": false,
			"schema": object{"type": "string", "format": "byte"}, "description": "logins and proxies of the client for " +
				"this request, which are neither stored nor logged: the base64 of a RegistryAccess as JSON. Without it " +
				"registries are asked anonymously and directly"})
	}
	op := object{"operationId": r.name, "summary": r.about, "responses": object{
		"default": object{"description": "the request failed", "content": g.json(reflect.TypeFor[wire.ErrorBody]())},
	}}
	status, answer := g.answer(r.answer)
	op["responses"].(object)[status] = answer
	if r.path == "/v1/vms/{vm}/files" {
		op["responses"].(object)["200"] = object{"description": "what is at the path (op=stat)",
			"content": g.json(reflect.TypeFor[banger.FileInfo]())}
	}
	if len(params) > 0 {
		op["parameters"] = params
	}
	switch body := r.body.(type) {
	case nil:
	case content:
		op["requestBody"] = object{"required": true, "content": binary(body)}
	default:
		op["requestBody"] = object{"required": true, "content": g.json(reflect.TypeOf(body))}
	}
	return op
}

// answer returns the status of a successful answer and what it has.
func (g generator) answer(answer any) (status string, about object) {
	switch a := answer.(type) {
	case nil:
		return "204", object{"description": "done"}
	case progress:
		return "200", object{"description": "progress, one event per line; the last has the result or the error",
			"content": object{ndjson: object{"schema": g.schema(reflect.TypeFor[banger.Event]())}}}
	case lines:
		return "200", object{"description": "one value per line",
			"content": object{ndjson: object{"schema": g.schema(reflect.TypeOf(a.of))}}}
	case content:
		if a[0] == "application/json" {
			return "200", object{"description": "OK", "content": object{a[0]: object{"schema": object{"type": "object"}}}}
		}
		return "200", object{"description": "OK", "content": binary(a)}
	case upgrade:
		return "101", object{"description": "the connection carries " + a.protocol + " from now on"}
	}
	return "200", object{"description": "OK", "content": g.json(reflect.TypeOf(answer))}
}

func binary(media content) object {
	types := object{}
	for _, m := range media {
		types[m] = object{"schema": object{"type": "string", "format": "binary"}}
	}
	return types
}

func (g generator) json(t reflect.Type) object {
	return object{"application/json": object{"schema": g.schema(t)}}
}

// schema returns the schema of values of a type. Structs get an entry of their own.
func (g generator) schema(t reflect.Type) object {
	switch {
	case t == reflect.TypeFor[time.Time]():
		return object{"type": "string", "format": "date-time"}
	case t == reflect.TypeFor[usage.Series]():
		return object{"type": "array", "items": object{"type": "number", "nullable": true}}
	case t == reflect.TypeFor[[]byte]():
		return object{"type": "string", "format": "byte"}
	case t.Implements(reflect.TypeFor[encoding.TextMarshaler]()):
		return object{"type": "string"}
	}
	switch t.Kind() {
	case reflect.Pointer:
		return g.schema(t.Elem())
	case reflect.Bool:
		return object{"type": "boolean"}
	case reflect.String:
		return object{"type": "string"}
	case reflect.Float64:
		return object{"type": "number"}
	case reflect.Slice:
		return object{"type": "array", "items": g.schema(t.Elem())}
	case reflect.Map:
		return object{"type": "object", "additionalProperties": g.schema(t.Elem())}
	case reflect.Struct:
		name := schemaName(t)
		if g.schemas[name] == nil {
			g.schemas[name] = object{} // for a type that contains itself
			g.schemas[name] = g.structure(t, name)
		}
		return object{"$ref": "#/components/schemas/" + name}
	}
	return object{"type": "integer"}
}

func schemaName(t reflect.Type) string {
	if t == reflect.TypeFor[wire.ErrorBody]() {
		return "Failure"
	}
	return strings.ToUpper(t.Name()[:1]) + t.Name()[1:]
}

func (g generator) structure(t reflect.Type, name string) object {
	properties, always := object{}, []string{}
	for f := range t.Fields() {
		tag, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous && tag == "" {
			inner := g.structure(f.Type, name)
			for key, s := range inner["properties"].(object) {
				properties[key] = s
			}
			continue
		}
		if tag == "-" || tag == "" {
			continue
		}
		s := g.schema(f.Type)
		for key, v := range constraints[schemaName(t)+"."+tag] {
			s[key] = v
		}
		if c := g.comments[t.Name()+"."+f.Name]; c != "" && s["$ref"] == nil { // beside $ref nothing counts
			s["description"] = c
		}
		properties[tag] = s
		if options == "" {
			always = append(always, tag)
		}
	}
	if names, ok := required[name]; ok {
		always = names
	}
	s := object{"type": "object", "properties": properties}
	if len(always) > 0 {
		s["required"] = always
	}
	if c := g.comments[t.Name()]; c != "" {
		s["description"] = c
	}
	return s
}

// comments returns the comments of the types in the Go files of some directories.
func comments(t *testing.T, dirs ...string) map[string]string {
	t.Helper()
	found := map[string]string{}
	for _, dir := range dirs {
		names, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil || len(names) == 0 {
			t.Fatalf("no Go files in %s: %v", dir, err)
		}
		for _, name := range names {
			file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			ast.Inspect(file, func(n ast.Node) bool {
				if d, ok := n.(*ast.GenDecl); ok {
					commentsOf(d, found)
				}
				return true
			})
		}
	}
	return found
}

func commentsOf(d *ast.GenDecl, found map[string]string) {
	for _, spec := range d.Specs {
		typ, ok := spec.(*ast.TypeSpec)
		if !ok {
			continue
		}
		if len(d.Specs) == 1 {
			found[typ.Name.Name] = oneLine(d.Doc.Text())
		}
		s, ok := typ.Type.(*ast.StructType)
		if !ok {
			continue
		}
		for _, f := range s.Fields.List {
			for _, name := range f.Names {
				found[typ.Name.Name+"."+name.Name] = oneLine(f.Doc.Text() + f.Comment.Text())
			}
		}
	}
}

func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }
