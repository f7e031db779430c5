"""A policy that learns from what it serves, asked by OpenAI's own client: whole, streamed, several at a time; then spoken of.

    python traffic.py http://127.0.0.1:8000 [API_KEY]
"""

import json
import sys
import time
import urllib.error
import urllib.request

import openai

URL = sys.argv[1]
KEY = sys.argv[2] if len(sys.argv) > 2 else "any"
client = openai.OpenAI(base_url=URL + "/v1", api_key=KEY, max_retries=0)


def call(path, body=None, method=None):
    data = None if body is None else json.dumps(body).encode()
    headers = {"content-type": "application/json", "authorization": f"Bearer {KEY}"}
    request = urllib.request.Request(URL + path, data, headers, method=method)
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def ask(**more):
    return client.chat.completions.create(
        model="ours", messages=[{"role": "user", "content": "hello"}], max_tokens=6, user="ada",
        metadata={"conversation": "c1", "route": "greeting"}, **more)


assert "ours" in [model.id for model in client.models.list().data]
raw = client.chat.completions.with_raw_response.create(
    model="ours", messages=[{"role": "user", "content": "hello"}], max_tokens=6)
assert raw.headers["x-posttrain-version"] == "0", raw.headers

ids = [ask().id for _ in range(5)]
chunks = list(ask(stream=True))
assert len({chunk.id for chunk in chunks}) == 1
ids.append(chunks[0].id)
several = ask(n=2)
ids += [f"{several.id}-{choice.index}" for choice in several.choices]
text = client.completions.create(model="ours", prompt="ab", max_tokens=3)
ids.append(text.id)

for place, one in enumerate(ids):
    said = {"score": place % 2} if place % 3 else {"edit": "kept"}
    assert call("/feedback", {"id": one, **said})["learned_from"] == "waiting"
try:
    call("/feedback", {"id": "chatcmpl-nobody", "score": 1.0})
    raise AssertionError("nobody was answered by that id")
except urllib.error.HTTPError as error:
    assert error.code == 404, error

until = time.time() + 120
while not call("/traffic.json")["decisions"]:
    assert time.time() < until, "nothing is decided"
    time.sleep(0.1)
state = call("/traffic.json")
decision = state["decisions"][0]
print(decision["verdict"], decision["reason"])
assert state["present"] == 0 and decision["learned"]["completions"] == 8, state

deleted = call("/users/ada", method="DELETE")
print(deleted)
assert deleted["completions"] == 8 and deleted["versions_that_had_learned_from_them"] == [1], deleted
print("OK")
