package model

import (
	"encoding/json"
	"strings"
)

// texts returns all that is text in a message's content: a string, or a list of parts.
func texts(raw json.RawMessage) string {
	var s string
	if json.Unmarshal(raw, &s) == nil {
		return s
	}
	var parts []struct {
		Text string `json:"text"`
	}
	json.Unmarshal(raw, &parts)
	var all []string
	for _, p := range parts {
		all = append(all, p.Text)
	}
	return strings.Join(all, "\n")
}

// shellOf returns the shell among tools.
func shellOf(tools []tool) *tool {
	for i, t := range tools {
		if shells[t.Name] {
			return &tools[i]
		}
	}
	return nil
}

// readChat reads OpenAI's chat completions.
func readChat(body []byte) (t turn) {
	var r struct {
		Messages []struct {
			Role    string          `json:"role"`
			Content json.RawMessage `json:"content"`
		} `json:"messages"`
		Tools []struct {
			Function tool `json:"function"`
		} `json:"tools"`
	}
	json.Unmarshal(body, &r)
	for _, m := range r.Messages {
		if t.result = m.Role == "tool"; m.Role == "user" {
			t.prompt = texts(m.Content)
		}
	}
	var tools []tool
	for _, f := range r.Tools {
		tools = append(tools, f.Function)
	}
	t.tool = shellOf(tools)
	return t
}

func answerChat(s stream, t turn) {
	chunk := func(delta obj, reason any) {
		s.event("", obj{"id": "chatcmpl-" + s.id, "object": "chat.completion.chunk", "created": 1, "model": "scripted",
			"choices": []obj{{"index": 0, "delta": delta, "finish_reason": reason}}})
	}
	reason := "stop"
	if line := t.line(); line != "" {
		args, _ := json.Marshal(t.tool.arguments(line))
		chunk(obj{"role": "assistant", "tool_calls": []obj{{"index": 0, "id": "call_" + s.id, "type": "function",
			"function": obj{"name": t.tool.Name, "arguments": string(args)}}}}, nil)
		reason = "tool_calls"
	} else {
		chunk(obj{"role": "assistant", "content": said}, nil)
	}
	chunk(obj{}, reason)
	s.event("", obj{"id": "chatcmpl-" + s.id, "object": "chat.completion.chunk", "created": 1, "model": "scripted",
		"choices": []obj{}, "usage": obj{"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}})
	s.end("[DONE]")
}

// readResponses reads OpenAI's responses.
func readResponses(body []byte) (t turn) {
	var r struct {
		Input []struct {
			Type    string          `json:"type"`
			Role    string          `json:"role"`
			Content json.RawMessage `json:"content"`
		} `json:"input"`
		Tools []tool `json:"tools"`
	}
	json.Unmarshal(body, &r)
	for _, m := range r.Input {
		if t.result = strings.HasSuffix(m.Type, "_output"); m.Role == "user" {
			t.prompt = texts(m.Content)
		}
	}
	t.tool = shellOf(r.Tools)
	return t
}

func answerResponses(s stream, t turn) {
	response := obj{"id": "resp_" + s.id, "object": "response", "created_at": 1, "model": "scripted",
		"status": "in_progress",
		"output": []obj{}}
	s.event("response.created", obj{"type": "response.created", "response": response})
	item := obj{"id": "item_" + s.id, "type": "message", "role": "assistant", "status": "completed",
		"content": []obj{{"type": "output_text", "text": said, "annotations": []obj{}}}}
	if line := t.line(); line != "" {
		args, _ := json.Marshal(t.tool.arguments(line))
		item = obj{"id": "item_" + s.id, "type": "function_call", "status": "completed", "call_id": "call_" + s.id,
			"name":      t.tool.Name,
			"arguments": string(args)}
	}
	s.event("response.output_item.added", obj{"type": "response.output_item.added", "output_index": 0, "item": item})
	s.event("response.output_item.done", obj{"type": "response.output_item.done", "output_index": 0, "item": item})
	response["status"], response["output"] = "completed", []obj{item}
	response["usage"] = obj{"input_tokens": 1, "output_tokens": 1, "total_tokens": 2,
		"input_tokens_details": obj{"cached_tokens": 0}, "output_tokens_details": obj{"reasoning_tokens": 0}}
	s.event("response.completed", obj{"type": "response.completed", "response": response})
}

// readMessages reads Anthropic's messages.
func readMessages(body []byte) (t turn) {
	var r struct {
		Messages []struct {
			Role    string          `json:"role"`
			Content json.RawMessage `json:"content"`
		} `json:"messages"`
		Tools []tool `json:"tools"`
	}
	json.Unmarshal(body, &r)
	for _, m := range r.Messages {
		var parts []struct {
			Type string `json:"type"`
		}
		json.Unmarshal(m.Content, &parts)
		t.result = false
		for _, p := range parts {
			t.result = t.result || p.Type == "tool_result"
		}
		if m.Role == "user" && !t.result {
			t.prompt = texts(m.Content)
		}
	}
	t.tool = shellOf(r.Tools)
	return t
}

func answerMessages(s stream, t turn) {
	send := func(kind string, more obj) {
		more["type"] = kind
		s.event(kind, more)
	}
	send("message_start", obj{"message": obj{"id": "msg_" + s.id, "type": "message", "role": "assistant",
		"model": "scripted", "content": []obj{}, "stop_reason": nil, "stop_sequence": nil,
		"usage": obj{"input_tokens": 1, "output_tokens": 1}}})
	reason := "end_turn"
	if line := t.line(); line != "" {
		args, _ := json.Marshal(t.tool.arguments(line))
		send("content_block_start", obj{"index": 0, "content_block": obj{"type": "tool_use", "id": "toolu_" + s.id,
			"name": t.tool.Name, "input": obj{}}})
		send("content_block_delta", obj{"index": 0, "delta": obj{"type": "input_json_delta", "partial_json": string(args)}})
		reason = "tool_use"
	} else {
		send("content_block_start", obj{"index": 0, "content_block": obj{"type": "text", "text": ""}})
		send("content_block_delta", obj{"index": 0, "delta": obj{"type": "text_delta", "text": said}})
	}
	send("content_block_stop", obj{"index": 0})
	send("message_delta", obj{"delta": obj{"stop_reason": reason, "stop_sequence": nil},
		"usage": obj{"output_tokens": 1}})
	send("message_stop", obj{})
}

// readGemini reads Google's generateContent.
func readGemini(body []byte) (t turn) {
	var r struct {
		Contents []struct {
			Role  string `json:"role"`
			Parts []struct {
				Text     string          `json:"text"`
				Response json.RawMessage `json:"functionResponse"`
			} `json:"parts"`
		} `json:"contents"`
		Tools []struct {
			Functions []tool `json:"functionDeclarations"`
		} `json:"tools"`
	}
	json.Unmarshal(body, &r)
	for _, m := range r.Contents {
		t.result = false
		var all []string
		for _, p := range m.Parts {
			t.result = t.result || p.Response != nil
			all = append(all, p.Text)
		}
		if m.Role == "user" && !t.result {
			t.prompt = strings.Join(all, "\n")
		}
	}
	var tools []tool
	for _, group := range r.Tools {
		tools = append(tools, group.Functions...)
	}
	t.tool = shellOf(tools)
	return t
}

func answerGemini(s stream, t turn) {
	part := obj{"text": said}
	if line := t.line(); line != "" {
		part = obj{"functionCall": obj{"name": t.tool.Name, "args": t.tool.arguments(line)}}
	}
	s.event("", obj{"candidates": []obj{{"index": 0, "finishReason": "STOP", "content": obj{"role": "model",
		"parts": []obj{part}}}}, "modelVersion": "scripted",
		"usageMetadata": obj{"promptTokenCount": 1, "candidatesTokenCount": 1, "totalTokenCount": 2}})
}
