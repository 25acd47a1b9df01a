package format

import (
	"encoding"
	"reflect"
	"strings"
	"time"
)

// object holds the fields of a value. A template reads them as it reads the fields of a struct.
type object map[string]any

// Label returns one of the value's labels, as docker's .Label does. Without it, it returns "".
func (o object) Label(key string) string {
	switch labels := o["Labels"].(type) {
	case labelList:
		return labels.of[key]
	case map[string]string:
		return labels[key]
	}
	return ""
}

// labelList prints labels as docker's lists do: KEY=VALUE,KEY=VALUE.
type labelList struct {
	of   map[string]string
	text string
}

func (l labelList) String() string { return l.text }

// MarshalText implements encoding.TextMarshaler, for {{json .}}.
func (l labelList) MarshalText() ([]byte, error) { return []byte(l.text), nil }

// headed holds the titles of the fields of an object.
type headed map[string]any

// Label returns the title of a column of labels, as in docker.
func (h headed) Label(key string) string {
	parts := strings.FieldsFunc(key, func(r rune) bool { return r == '.' })
	return strings.ToUpper(parts[max(len(parts)-1, 0)])
}

// dockerTitles are the titles that are not the words of their fields.
var dockerTitles = map[string]string{"CPUPerc": "CPU %", "MemPerc": "MEM %", "MemUsage": "MEM USAGE / LIMIT",
	"NetIO": "NET I/O", "BlockIO": "BLOCK I/O", "PIDs": "PIDS", "ID": "ID", "RunningFor": "CREATED",
	"CreatedSince": "CREATED", "TotalCount": "TOTAL", "Container": "ID", "IPv6": "IPV6"}

func headings(o object) headed {
	h := headed{}
	for name := range o {
		var b strings.Builder
		for i, r := range name {
			if i > 0 && r >= 'A' && r <= 'Z' {
				b.WriteByte(' ')
			}
			b.WriteRune(r)
		}
		h[name] = strings.ToUpper(strings.ReplaceAll(b.String(), "_", " "))
		if t := dockerTitles[name]; t != "" {
			h[name] = t
		}
	}
	return h
}

// plain returns v as templates read it: structs are objects whose fields have their names in JSON. Fields that JSON
// omits are there, because a template has no other way to ask for them.
func plain(v any) any { return plainOf(reflect.ValueOf(v)) }

func plainOf(v reflect.Value) any {
	if !v.IsValid() {
		return nil
	}
	switch x := v.Interface().(type) {
	case time.Time:
		if x.IsZero() {
			return ""
		}
		return x.Format(time.RFC3339Nano)
	case encoding.TextMarshaler:
		if v.Kind() != reflect.Pointer || !v.IsNil() {
			text, _ := x.MarshalText()
			return string(text)
		}
	}
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if !v.IsNil() {
			return plainOf(v.Elem())
		}
		if v.Kind() == reflect.Pointer && v.Type().Elem().Kind() == reflect.Struct {
			return plainOf(reflect.Zero(v.Type().Elem()))
		}
		return ""
	case reflect.Struct:
		o := object{}
		addFields(o, v)
		return o
	case reflect.Slice, reflect.Array:
		list := make([]any, v.Len())
		for i := range list {
			list[i] = plainOf(v.Index(i))
		}
		return list
	case reflect.Map:
		if m, ok := v.Interface().(map[string]string); ok {
			return nonNil(m)
		}
		o := map[string]any{}
		for _, k := range v.MapKeys() {
			o[k.String()] = plainOf(v.MapIndex(k))
		}
		return o
	case reflect.String:
		return v.String()
	}
	return v.Interface()
}

// addFields adds the fields of the struct v, and of the structs embedded in it.
func addFields(o object, v reflect.Value) {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case f.Anonymous && name == "":
			addFields(o, v.Field(i))
		case f.IsExported() && name != "" && name != "-":
			o[name] = plainOf(v.Field(i))
		}
	}
}
