"""Drives the OpenAI side with OpenAI's own client.

    python openai_client.py http://127.0.0.1:8000 [API_KEY]
"""

import sys

import openai

URL = sys.argv[1]
KEY = sys.argv[2] if len(sys.argv) > 2 else "any"
client = openai.OpenAI(base_url=f"{URL}/v1", api_key=KEY, max_retries=0)
model = client.models.list().data[0].id
assert client.models.retrieve(model).id == model
messages = [{"role": "user", "content": "hello"}]

whole = client.chat.completions.create(model=model, messages=messages, max_tokens=8, seed=1, n=2)
assert len(whole.choices) == 2 and whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens
streamed = ["", ""]
finished = {}
for chunk in client.chat.completions.create(
    model=model, messages=messages, max_tokens=8, seed=1, n=2, stream=True, stream_options={"include_usage": True}
):
    for choice in chunk.choices:
        streamed[choice.index] += choice.delta.content or ""
        if choice.finish_reason:
            finished[choice.index] = choice.finish_reason
assert streamed == [choice.message.content for choice in whole.choices], (streamed, whole)
assert finished == {choice.index: choice.finish_reason for choice in whole.choices}
assert chunk.usage == whole.usage
print("chat, whole and streamed")

scored = client.chat.completions.create(
    model=model, messages=messages, max_tokens=4, temperature=0, logprobs=True, top_logprobs=3)
for token in scored.choices[0].logprobs.content:
    assert len(token.top_logprobs) == 3 and abs(token.top_logprobs[0].logprob - token.logprob) < 2e-3
text = client.completions.create(model=model, prompt="hello", max_tokens=6, seed=2, logprobs=2)
assert len(text.choices[0].logprobs.tokens) == text.usage.completion_tokens
again = client.completions.create(model=model, prompt="hello", max_tokens=6, seed=2, stream=True)
assert "".join(chunk.choices[0].text for chunk in again) == text.choices[0].text
print("log-probabilities, completions")

tool = {"type": "function", "function": {"name": "add", "description": "adds", "parameters": {"type": "object"}}}
plain = client.chat.completions.create(model=model, messages=messages, max_tokens=4)
told = client.chat.completions.create(model=model, messages=messages, max_tokens=4, tools=[tool])
# Whether the template tells the model of its tools is the template's matter; where it does, the prompt is longer.
assert told.usage.prompt_tokens >= plain.usage.prompt_tokens
back = client.chat.completions.create(
    model=model, max_tokens=4,
    messages=messages + [whole.choices[0].message.model_dump(), {"role": "user", "content": "again"}])
assert back.choices[0].finish_reason in ("stop", "length")
print("tools, and messages that come back")

for broken, words in [
    (dict(model="another"), "another"),
    (dict(temperature=-1), "temperature"),
    (dict(frequency_penalty=1), "frequency_penalty"),
    (dict(messages=[]), "messages"),
    (dict(extra_body={"unknown_field": 1}), "unknown_field"),
]:
    try:
        client.chat.completions.create(**{"model": model, "messages": messages, "max_tokens": 2, **broken})
    except openai.APIStatusError as error:
        assert words in str(error), error
    else:
        raise AssertionError(f"{broken}: nothing was refused")
print("errors in words")
print("OK")
