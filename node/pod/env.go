package pod

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// Environment sets the variables of all commands from values, config maps, secrets and fields of the Pod.
func (plan *Plan) Environment(ctx context.Context, p *corev1.Pod, from Sources) error {
	for i := range plan.Inits {
		if err := plan.Inits[i].environment(ctx, p, &p.Spec.InitContainers[i], from); err != nil {
			return err
		}
	}
	err := plan.Main.environment(ctx, p, &p.Spec.Containers[0], from)
	plan.Spec.Env = plan.Main.Session.Command.Env // for the commands of users, as kubectl exec starts them
	return err
}

// environment sets the variables of a command, and expands $(NAME) in its words, as Kubernetes does.
func (c *Command) environment(ctx context.Context, p *corev1.Pod, of *corev1.Container, from Sources) error {
	values := map[string]string{}
	for _, source := range of.EnvFrom {
		all, err := keysOf(ctx, p.Namespace, source, from)
		if err != nil {
			return err
		}
		for k, v := range all {
			values[source.Prefix+k] = string(v)
		}
	}
	for _, v := range of.Env {
		value, is, err := variable(ctx, p, of, v, values, from)
		if err != nil {
			return fmt.Errorf("variable %s: %w", v.Name, err)
		}
		if is {
			values[v.Name] = value
		}
	}
	c.Session.Command.Env = nil
	for _, name := range slices.Sorted(maps.Keys(values)) {
		c.Session.Command.Env = append(c.Session.Command.Env, name+"="+values[name])
	}
	c.Command, c.Args = expandAll(of.Command, values), expandAll(of.Args, values)
	return nil
}

// keysOf returns all that an object has, as variables.
func keysOf(ctx context.Context, namespace string, source corev1.EnvFromSource,
	from Sources) (map[string][]byte, error) {
	switch {
	case source.ConfigMapRef != nil:
		return configMapData(ctx, namespace, source.ConfigMapRef.Name, source.ConfigMapRef.Optional, from)
	case source.SecretRef != nil:
		return secretData(ctx, namespace, source.SecretRef.Name, source.SecretRef.Optional, from)
	}
	return nil, nil
}

// variable returns the value of a variable. An optional one may have none.
func variable(ctx context.Context, p *corev1.Pod, c *corev1.Container, v corev1.EnvVar, before map[string]string,
	from Sources) (value string, is bool, err error) {
	if v.ValueFrom == nil {
		return expand(v.Value, before), true, nil
	}
	var data map[string][]byte
	var key string
	var maybe *bool
	switch s := v.ValueFrom; {
	case s.ConfigMapKeyRef != nil:
		key, maybe = s.ConfigMapKeyRef.Key, s.ConfigMapKeyRef.Optional
		data, err = configMapData(ctx, p.Namespace, s.ConfigMapKeyRef.Name, maybe, from)
	case s.SecretKeyRef != nil:
		key, maybe = s.SecretKeyRef.Key, s.SecretKeyRef.Optional
		data, err = secretData(ctx, p.Namespace, s.SecretKeyRef.Name, maybe, from)
	case s.FieldRef != nil:
		value, err = field(p, s.FieldRef.FieldPath)
		return value, true, err
	case s.ResourceFieldRef != nil:
		value, err = amount(c, s.ResourceFieldRef)
		return value, true, err
	default:
		return "", false, fmt.Errorf("this source of a value is not there")
	}
	if err != nil {
		return "", false, err
	}
	b, ok := data[key]
	if !ok && !optional(maybe) {
		return "", false, fmt.Errorf("there is no key %q", key)
	}
	return string(b), ok, nil
}

// amount returns a limit or a request of a container.
func amount(c *corev1.Container, f *corev1.ResourceFieldSelector) (string, error) {
	kind, name, _ := strings.Cut(f.Resource, ".")
	list := map[string]corev1.ResourceList{"limits": c.Resources.Limits, "requests": c.Resources.Requests}[kind]
	if list == nil && kind != "limits" && kind != "requests" {
		return "", fmt.Errorf("the resource %s is not there", f.Resource)
	}
	q, divisor := list[corev1.ResourceName(name)], f.Divisor
	if divisor.IsZero() {
		divisor = resource.MustParse("1")
	}
	n := (q.MilliValue() + divisor.MilliValue() - 1) / divisor.MilliValue()
	return fmt.Sprint(n), nil
}

func expandAll(words []string, values map[string]string) (out []string) {
	for _, word := range words {
		out = append(out, expand(word, values))
	}
	return out
}

// expand replaces $(NAME) by the value of NAME, if there is one. $$ is one $.
func expand(text string, values map[string]string) string {
	var out strings.Builder
	for {
		i := strings.IndexByte(text, '$')
		if i < 0 || i+1 == len(text) {
			out.WriteString(text)
			return out.String()
		}
		out.WriteString(text[:i])
		text = text[i+1:]
		end := strings.IndexByte(text, ')')
		switch {
		case text[0] == '$':
			out.WriteByte('$')
			text = text[1:]
		case text[0] == '(' && end > 0:
			if v, ok := values[text[1:end]]; ok {
				out.WriteString(v)
			} else {
				out.WriteString("$" + text[:end+1])
			}
			text = text[end+1:]
		default:
			out.WriteByte('$')
		}
	}
}
