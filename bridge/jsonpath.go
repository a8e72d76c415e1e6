package bridge

import (
	"bytes"
	"encoding/json"
	"strconv"
)

// appendJSONValue appends the value at path inside a JSON document: a string
// without its quotes, anything else as it is written. A step into an array is
// its index. Nothing is appended when the document is not JSON, has no such
// value, or the value is null.
func appendJSONValue(dst, doc []byte, path []string) []byte {
	if !json.Valid(doc) {
		return dst
	}
	value := json.RawMessage(bytes.TrimSpace(doc))
	for _, step := range path {
		var ok bool
		if value, ok = jsonStep(value, step); !ok {
			return dst
		}
	}
	switch {
	case len(value) == 0 || string(value) == "null":
		return dst
	case value[0] == '"':
		var text string
		if err := json.Unmarshal(value, &text); err != nil {
			return dst
		}
		return append(dst, text...)
	case value[0] == '{' || value[0] == '[':
		var compact bytes.Buffer
		if err := json.Compact(&compact, value); err != nil {
			return dst
		}
		return append(dst, compact.Bytes()...)
	}
	return append(dst, value...)
}

func jsonStep(value json.RawMessage, step string) (json.RawMessage, bool) {
	if len(value) == 0 {
		return nil, false
	}
	switch value[0] {
	case '{':
		var object map[string]json.RawMessage
		if err := json.Unmarshal(value, &object); err != nil {
			return nil, false
		}
		inner, ok := object[step]
		return inner, ok
	case '[':
		n, err := strconv.Atoi(step)
		if err != nil || n < 0 {
			return nil, false
		}
		var list []json.RawMessage
		if err := json.Unmarshal(value, &list); err != nil || n >= len(list) {
			return nil, false
		}
		return list[n], true
	}
	return nil, false
}
