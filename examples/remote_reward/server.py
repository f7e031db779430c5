"""A remote reward in the standard library alone: python3 server.py [PORT]. Change `score`; the contract is RemoteConfig's.

Takes one sample or a batch (`samples`), answers a request that is repeated (same `request_id`) from memory, and turns a
sample that fails into an error of its own, never into a reward of 0."""
import collections, json, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MAX_BYTES, REMEMBERED = 64 << 20, 10_000
answers = collections.OrderedDict()


def score(sample):
    """From 0 to 1, or an exception: here, the share of the reference's words that the response has."""
    wanted, found = sample["reference"].split(), set(sample["response"].split())
    if not wanted:
        raise ValueError("an empty reference")
    share = sum(word in found for word in wanted) / len(wanted)
    return {"reward": share, "parts": {"words": len(wanted)}, "note": f"{share:.0%} of the words"}


def reply_to(sample):
    try:
        return score(sample)
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}


def answer(request):
    name = request.get("request_id", object())
    reply = answers.get(name)
    if reply is None:
        samples = request.get("samples")
        reply = reply_to(request) if samples is None else {"results": [reply_to(sample) for sample in samples]}
        answers[name] = reply
        if len(answers) > REMEMBERED:
            answers.popitem(last=False)
    return reply


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        length = int(self.headers.get("Content-Length", MAX_BYTES + 1))
        if length > MAX_BYTES:
            return self.send_error(413)
        try:
            body = json.dumps(answer(json.loads(self.rfile.read(length)))).encode()
        except (ValueError, AttributeError, TypeError):
            return self.send_error(400)
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 8000), Handler)
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()
