"""A step's process that calls a model with nothing but the standard library, as its environment says."""
import json
import os
import sys
import urllib.request

def call(body):
    request = urllib.request.Request(os.environ["OPENAI_BASE_URL"] + "/chat/completions", json.dumps(body).encode(),
                                     {"Authorization": "Bearer " + os.environ["OPENAI_API_KEY"], "Content-Type": "application/json"})
    return urllib.request.urlopen(request, timeout=60)


whole = json.load(call({"model": "small", "max_tokens": 11, "messages": [{"role": "user", "content": "whole"}]}))
events = [line[6:].strip() for line in call({"model": "small", "max_tokens": 13, "stream": True, "stream_options": {"include_usage": True},
                                             "messages": [{"role": "user", "content": "stream"}]}) if line.startswith(b"data: ")]
if events[-1] != b"[DONE]":
    sys.exit("the stream did not end: " + repr(events[-1]))
usages = [whole["usage"], json.loads(events[-2])["usage"]]
print(json.dumps({name: sum(u[name] for u in usages) for name in ("prompt_tokens", "completion_tokens")}))
