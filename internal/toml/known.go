package toml

import (
	"cmp"
	"encoding"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// unknown returns the first key of a file that a Go value of type t does not have, or nil.
func (l Lines) unknown(t reflect.Type) *Unknown {
	paths := slices.SortedFunc(maps.Keys(l), func(a, b string) int { return cmp.Or(l[a]-l[b], strings.Compare(a, b)) })
	for _, name := range paths {
		path := strings.Split(name, "\x00")
		if known, ok := fits(t, path); !ok {
			return &Unknown{l[name], path, known}
		}
	}
	return nil
}

var text = reflect.TypeFor[encoding.TextUnmarshaler]()

// fits reports whether a type has a key. If not, it returns the keys that may be in its place.
func fits(t reflect.Type, path []string) (known []string, ok bool) {
	for len(path) > 0 {
		for t.Kind() == reflect.Pointer {
			t = t.Elem()
		}
		switch t.Kind() {
		case reflect.Struct:
			if reflect.PointerTo(t).Implements(text) {
				return nil, true
			}
			fields := keys(t)
			next, ok := fields[path[0]]
			if !ok {
				return slices.Sorted(maps.Keys(fields)), false
			}
			t = next
		case reflect.Map:
			t = t.Elem()
		case reflect.Slice:
			if _, err := strconv.Atoi(path[0]); err != nil {
				return nil, true // one table is a list of one to the decoder, which checks its keys
			}
			t = t.Elem()
		default:
			return nil, true
		}
		path = path[1:]
	}
	return nil, true
}

// keys returns the types of the fields of a struct by their keys. Those of embedded structs are its own.
func keys(t reflect.Type) map[string]reflect.Type {
	all := map[string]reflect.Type{}
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("toml"), ",")
		switch {
		case f.Anonymous && name == "":
			maps.Copy(all, keys(f.Type))
		case f.IsExported() && name != "-":
			all[cmp.Or(name, f.Name)] = f.Type
		}
	}
	return all
}
