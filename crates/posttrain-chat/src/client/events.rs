//! Server-sent events: the form that servers stream in.

use std::string::FromUtf8Error;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use crate::ChatError;
use crate::client::exchange::Exchange;

/// How long an answer's last bytes are waited for, once all that it says is known.
const REST: Duration = Duration::from_millis(50);

/// The events of a streamed answer, each the text of its `data`.
///
/// Bounded like every answer: by `max_response_bytes` altogether, by the read deadline between
/// bytes, by the attempt deadline from beginning to end. Comments (servers send them to keep a
/// connection alive) and empty events are dropped. The names of events are dropped, too:
/// OpenAI-compatible servers put all they have to say into the data.
///
/// [`JsonClient::post_events`](crate::client::JsonClient::post_events) opens it and has an example.
pub struct Events {
    exchange: Exchange,
    parser: EventParser,
    state: State,
    _slot: Option<OwnedSemaphorePermit>,
}

#[derive(PartialEq)]
enum State {
    Open,
    Ended,
    Failed,
}

impl Events {
    pub(crate) fn new(exchange: Exchange, slot: Option<OwnedSemaphorePermit>) -> Self {
        Self { exchange, parser: EventParser::default(), state: State::Open, _slot: slot }
    }

    /// The next event's data; nothing once the answer has ended or failed.
    pub async fn next(&mut self) -> Option<Result<String, ChatError>> {
        loop {
            if self.state == State::Failed {
                return None;
            }
            if let Some(event) = self.parser.next_event() {
                return Some(event.map_err(|_| self.not_text()));
            }
            if self.state == State::Ended {
                return None;
            }
            match self.exchange.chunk().await {
                Ok(Some(chunk)) => self.parser.push(&chunk),
                Ok(None) => self.end(),
                Err(error) => return Some(Err(self.fail(error))),
            }
        }
    }

    /// The same as a stream.
    #[must_use]
    pub fn into_stream(self) -> BoxStream<'static, Result<String, ChatError>> {
        stream::unfold(self, |mut events| async move { Some((events.next().await?, events)) })
            .boxed()
    }

    /// The server, for an error.
    pub(crate) fn endpoint(&self) -> String {
        self.exchange.lease.endpoint().to_owned()
    }

    /// The reader has all that it needs. What little follows is read, so that the connection can be
    /// used again.
    pub(crate) async fn finish(&mut self) {
        let rest = async { while let Ok(Some(_)) = self.exchange.chunk().await {} };
        // A server that holds the connection open after the end is not waited for.
        let _ = timeout(REST, rest).await;
        self.end();
    }

    fn end(&mut self) {
        self.state = State::Ended;
        self.exchange.lease.report(&Ok(()));
    }

    /// The reader has found that the answer is broken.
    pub(crate) fn fail(&mut self, error: ChatError) -> ChatError {
        self.state = State::Failed;
        let outcome: Result<(), ChatError> = Err(error.clone());
        self.exchange.lease.report(&outcome);
        error
    }

    fn not_text(&mut self) -> ChatError {
        self.fail(ChatError::UnexpectedAnswer {
            endpoint: self.endpoint(),
            field: "event",
            got: "bytes that are not UTF-8".into(),
            expected: "text",
        })
    }
}

/// Cuts bytes into events, wherever the pieces are cut: inside a character, between `\r` and `\n`.
///
/// Follows [the HTML standard,
/// 9.2.6](https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation).
#[derive(Debug, Default)]
struct EventParser {
    buffer: Vec<u8>,
    /// Where the next line begins.
    line: usize,
    /// Up to where no line end was found.
    searched: usize,
    data: Option<Vec<u8>>,
    begun: bool,
}

impl EventParser {
    fn push(&mut self, chunk: &Bytes) {
        // What has been read goes, so that memory is bounded by the longest event, not by the
        // answer.
        self.buffer.drain(..self.line);
        self.searched -= self.line;
        self.line = 0;
        self.buffer.extend_from_slice(chunk);
    }

    /// The next complete event; an error where it is not text.
    fn next_event(&mut self) -> Option<Result<String, FromUtf8Error>> {
        while let Some(line) = self.next_line() {
            if line.is_empty() {
                if let Some(data) = self.data.take() {
                    return Some(String::from_utf8(data));
                }
                continue;
            }
            self.read_field(&line);
        }
        None
    }

    fn next_line(&mut self) -> Option<Vec<u8>> {
        let found =
            self.buffer[self.searched..].iter().position(|byte| matches!(byte, b'\n' | b'\r'));
        let Some(end) = found.map(|offset| self.searched + offset) else {
            self.searched = self.buffer.len();
            return None;
        };
        let next = match (self.buffer[end], self.buffer.get(end + 1)) {
            (b'\r', Some(b'\n')) => end + 2,
            // Whether a line feed follows is not known yet.
            (b'\r', None) => {
                self.searched = end;
                return None;
            }
            _ => end + 1,
        };
        let line = self.buffer[self.line..end].to_vec();
        (self.line, self.searched) = (next, next);
        if !std::mem::replace(&mut self.begun, true) {
            return Some(line.strip_prefix("\u{feff}".as_bytes()).unwrap_or(&line).to_vec());
        }
        Some(line)
    }

    fn read_field(&mut self, line: &[u8]) {
        let colon = line.iter().position(|&byte| byte == b':').unwrap_or(line.len());
        if &line[..colon] != b"data" {
            return;
        }
        let value = line.get(colon + 1..).unwrap_or_default();
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match &mut self.data {
            Some(data) => {
                data.push(b'\n');
                data.extend_from_slice(value);
            }
            None => self.data = Some(value.to_vec()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Everything that comes out when the bytes come in pieces of these lengths, in turn.
    fn events(bytes: &[u8], lengths: &[usize]) -> Vec<Option<String>> {
        let (mut parser, mut found, mut rest) = (EventParser::default(), Vec::new(), bytes);
        for &length in lengths.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (piece, later) = rest.split_at(length.clamp(1, rest.len()));
            parser.push(&Bytes::copy_from_slice(piece));
            found.extend(std::iter::from_fn(|| parser.next_event()).map(Result::ok));
            rest = later;
        }
        found
    }

    const STREAM: &str = "\u{feff}data: {\"a\": \"é😀\"}\n\n: keep alive\n\nevent: x\r\nid: 3\r\ndata: one\r\ndata:two\r\n\r\n\
        data\rretry: 5\rdata:  spaced\r\rdata: [DONE]\n\ndata: never ended\n";

    #[test]
    fn events_are_read_as_the_standard_says() {
        let expected = ["{\"a\": \"é😀\"}", "one\ntwo", "\n spaced", "[DONE]"]
            .map(|text| Some(text.to_owned()));
        assert_eq!(events(STREAM.as_bytes(), &[4096]), expected);
        assert_eq!(events(b"data: \xff\xfe\n\ndata: x\n\n", &[1]), [None, Some("x".to_owned())]);
        assert!(events(b"\n\n\n: c\n\n", &[3]).is_empty());
    }

    #[test]
    fn what_is_read_is_forgotten() {
        let mut parser = EventParser::default();
        for _ in 0..10_000 {
            parser.push(&Bytes::from_static(b"data: a rather long line of text\n\ndata: be"));
            parser.push(&Bytes::from_static(b"gun\n\n"));
            while parser.next_event().is_some() {}
        }
        assert!(parser.buffer.capacity() < 1000);
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(lengths in proptest::collection::vec(1usize..20, 1..10)) {
            prop_assert_eq!(events(STREAM.as_bytes(), &lengths), events(STREAM.as_bytes(), &[4096]));
        }

        #[test]
        fn no_bytes_are_too_strange(bytes: Vec<u8>, lengths in proptest::collection::vec(1usize..20, 1..10)) {
            prop_assert_eq!(events(&bytes, &lengths), events(&bytes, &[4096]));
        }
    }
}
