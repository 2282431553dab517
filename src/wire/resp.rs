//! RESP values of control connections: commands out, replies in, and the other way round for our own servers.
//!
//! Decoding is `redis-protocol`'s, behind [`scan`](super::scan): that decoder recurses without a limit, so it is only given
//! complete values within [`Limits`].

use bytes::{Buf, Bytes, BytesMut};
use redis_protocol::resp3::{decode, types::BytesFrame};

use super::scan::{Limits, Malformed, Scanner};
use super::words::{self, Unbalanced};

/// A reply, RESP2 or RESP3, reduced to what control code tells apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// `+OK`
    Simple(String),
    /// `-ERR …`, without the minus.
    Error(String),
    /// `:1`
    Integer(i64),
    /// Any string, also the RESP3 ones.
    Bulk(Bytes),
    /// Null of either protocol.
    Null,
    /// Arrays, sets and pushes; maps with key and value alternating.
    Array(Vec<Self>),
    /// What RESP3 has a type of its own for. Only ever sent: decoding reduces it to the others.
    Rich(Rich),
}

/// Replies whose type RESP2 does not have. Each has a form there that clients of RESP2 expect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rich {
    /// A map; in RESP2 an array with key and value alternating.
    Map(Vec<(Reply, Reply)>),
    /// A set; in RESP2 an array.
    Set(Vec<Reply>),
    /// A message nobody asked for; in RESP2 an array.
    Push(Vec<Reply>),
    /// Text for people; in RESP2 a bulk string.
    Text(String),
    /// A decimal number; in RESP2 a bulk string.
    Double(String),
    /// The null of arrays, which in RESP2 is not the null of strings.
    NullArray,
}

/// The version of the protocol that a client has chosen by HELLO.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// RESP2, what every connection begins with.
    #[default]
    Two,
    /// RESP3.
    Three,
}

impl Protocol {
    /// 2 or 3.
    pub fn number(self) -> i64 {
        match self {
            Self::Two => 2,
            Self::Three => 3,
        }
    }
}

impl Reply {
    /// A map of names to values.
    pub fn map<K: Into<Bytes>>(pairs: impl IntoIterator<Item = (K, Self)>) -> Self {
        Self::Rich(Rich::Map(pairs.into_iter().map(|(key, value)| (Self::Bulk(key.into()), value)).collect()))
    }

    /// A set.
    pub fn set(elements: Vec<Self>) -> Self {
        Self::Rich(Rich::Set(elements))
    }

    /// A message that answers nothing.
    pub fn push(elements: Vec<Self>) -> Self {
        Self::Rich(Rich::Push(elements))
    }

    /// Text for people.
    pub fn prose(text: impl Into<String>) -> Self {
        Self::Rich(Rich::Text(text.into()))
    }

    /// The same, as RESP2 has it and as a decoder gives it.
    pub fn flat(self) -> Self {
        let all = |elements: Vec<Self>| Self::Array(elements.into_iter().map(Self::flat).collect());
        match self {
            Self::Array(elements) | Self::Rich(Rich::Set(elements) | Rich::Push(elements)) => all(elements),
            Self::Rich(Rich::Map(pairs)) => all(pairs.into_iter().flat_map(|(key, value)| [key, value]).collect()),
            Self::Rich(Rich::Text(text) | Rich::Double(text)) => Self::Bulk(text.into()),
            Self::Rich(Rich::NullArray) => Self::Null,
            plain @ (Self::Simple(_) | Self::Error(_) | Self::Integer(_) | Self::Bulk(_) | Self::Null) => plain,
        }
    }

    /// The text of a simple or bulk string, if it is UTF-8.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Simple(text) => Some(text),
            Self::Bulk(bytes) => std::str::from_utf8(bytes).ok(),
            Self::Error(_) | Self::Integer(_) | Self::Null | Self::Array(_) | Self::Rich(_) => None,
        }
    }

    /// The elements of an array.
    pub fn array(&self) -> Option<&[Self]> {
        match self {
            Self::Array(elements) => Some(elements),
            Self::Simple(_) | Self::Error(_) | Self::Integer(_) | Self::Bulk(_) | Self::Null | Self::Rich(_) => None,
        }
    }

    /// An integer, or a string that is one.
    pub fn integer(&self) -> Option<i64> {
        match self {
            Self::Integer(number) => Some(*number),
            Self::Simple(_) | Self::Bulk(_) => self.text()?.parse().ok(),
            Self::Error(_) | Self::Null | Self::Array(_) | Self::Rich(_) => None,
        }
    }

    /// Whether it is exactly `+OK`.
    pub fn is_ok(&self) -> bool {
        matches!(self, Self::Simple(text) if text == "OK")
    }
}

/// Takes complete values off a stream that comes in pieces.
#[derive(Debug)]
pub struct Decoder {
    scanner: Scanner,
    limits: Limits,
    /// Bytes of the current value already scanned.
    scanned: usize,
}

impl Decoder {
    /// A decoder at the start of a stream.
    pub fn new(limits: Limits) -> Self {
        Self { scanner: Scanner::new(limits), limits, scanned: 0 }
    }

    /// The next complete value, taken off `data`; none if more bytes are needed. After an error the stream is lost.
    pub fn next(&mut self, data: &mut BytesMut) -> Result<Option<Reply>, Malformed> {
        let (used, ended) = self.scanner.advance(&data[self.scanned..])?;
        self.scanned += used;
        let size_max = self.limits.bulk_max.saturating_mul(2);
        if self.scanned as u64 > size_max {
            return Err(Malformed::TooLarge { what: "value", size: self.scanned as u64, limit: size_max });
        }
        if !ended {
            return Ok(None);
        }
        let value = data.split_to(self.scanned).freeze();
        self.scanned = 0;
        reply(&value).map(Some)
    }
}

fn reply(value: &Bytes) -> Result<Reply, Malformed> {
    // RESP3 is a superset but for the two nulls of RESP2.
    let first = value.first().copied().unwrap_or(0);
    match decode::complete::decode_bytes(value) {
        Ok(Some((frame, _))) => Ok(convert(frame)),
        Ok(None) | Err(_) => resp2(value).ok_or(Malformed::Type(first)),
    }
}

/// What the RESP3 decoder refuses is RESP2 with a null in it.
fn resp2(value: &Bytes) -> Option<Reply> {
    use redis_protocol::resp2::{decode::decode_bytes, types::BytesFrame as Old};
    fn convert(frame: Old) -> Reply {
        match frame {
            Old::SimpleString(text) => Reply::Simple(lossy(&text)),
            Old::Error(text) => Reply::Error(text.to_string()),
            Old::Integer(number) => Reply::Integer(number),
            Old::BulkString(bytes) => Reply::Bulk(bytes),
            Old::Array(elements) => Reply::Array(elements.into_iter().map(convert).collect()),
            Old::Null => Reply::Null,
        }
    }
    decode_bytes(value).ok().flatten().map(|(frame, _)| convert(frame))
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn convert(frame: BytesFrame) -> Reply {
    match frame {
        BytesFrame::SimpleString { data, .. } => Reply::Simple(lossy(&data)),
        BytesFrame::SimpleError { data, .. } => Reply::Error(data.to_string()),
        BytesFrame::BlobError { data, .. } => Reply::Error(lossy(&data)),
        BytesFrame::Number { data, .. } => Reply::Integer(data),
        BytesFrame::Boolean { data, .. } => Reply::Integer(i64::from(data)),
        BytesFrame::Double { data, .. } => Reply::Bulk(Bytes::from(data.to_string())),
        BytesFrame::BlobString { data, .. }
        | BytesFrame::BigNumber { data, .. }
        | BytesFrame::VerbatimString { data, .. }
        | BytesFrame::ChunkedString(data) => Reply::Bulk(data),
        BytesFrame::Array { data, .. } | BytesFrame::Push { data, .. } => {
            Reply::Array(data.into_iter().map(convert).collect())
        }
        BytesFrame::Set { data, .. } => Reply::Array(data.into_iter().map(convert).collect()),
        BytesFrame::Map { data, .. } => {
            Reply::Array(data.into_iter().flat_map(|(key, value)| [convert(key), convert(value)]).collect())
        }
        BytesFrame::Null | BytesFrame::Hello { .. } => Reply::Null,
    }
}

/// Appends a command as an array of bulk strings.
pub fn command<I, A>(args: I, out: &mut BytesMut)
where
    I: IntoIterator<Item = A>,
    I::IntoIter: ExactSizeIterator,
    A: AsRef<[u8]>,
{
    let args = args.into_iter();
    out.extend_from_slice(format!("*{}\r\n", args.len()).as_bytes());
    for arg in args {
        bulk(arg.as_ref(), out);
    }
}

fn bulk(bytes: &[u8], out: &mut BytesMut) {
    out.extend_from_slice(format!("${}\r\n", bytes.len()).as_bytes());
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

/// Appends a reply in the protocol that its reader has chosen.
pub fn emit(reply: &Reply, protocol: Protocol, out: &mut BytesMut) {
    match reply {
        Reply::Simple(text) => line(b'+', text, out),
        Reply::Error(text) => line(b'-', text, out),
        Reply::Integer(number) => line(b':', &number.to_string(), out),
        Reply::Bulk(bytes) => bulk(bytes, out),
        Reply::Null => out.extend_from_slice(if protocol == Protocol::Three { b"_\r\n" } else { b"$-1\r\n" }),
        Reply::Array(elements) => aggregate(b'*', elements, protocol, out),
        Reply::Rich(rich) => match (rich, protocol) {
            (Rich::Set(elements) | Rich::Push(elements), Protocol::Two) => aggregate(b'*', elements, protocol, out),
            (Rich::Set(elements), Protocol::Three) => aggregate(b'~', elements, protocol, out),
            (Rich::Push(elements), Protocol::Three) => aggregate(b'>', elements, protocol, out),
            (Rich::Map(pairs), _) => {
                let (kind, count) = if protocol == Protocol::Three { (b'%', 1) } else { (b'*', 2) };
                line(kind, &(pairs.len() * count).to_string(), out);
                for (key, value) in pairs {
                    emit(key, protocol, out);
                    emit(value, protocol, out);
                }
            }
            (Rich::Text(text) | Rich::Double(text), Protocol::Two) => bulk(text.as_bytes(), out),
            (Rich::Double(text), Protocol::Three) => line(b',', text, out),
            (Rich::Text(text), Protocol::Three) => {
                line(b'=', &(text.len() + 4).to_string(), out);
                out.extend_from_slice(b"txt:");
                out.extend_from_slice(text.as_bytes());
                out.extend_from_slice(b"\r\n");
            }
            (Rich::NullArray, Protocol::Two) => out.extend_from_slice(b"*-1\r\n"),
            (Rich::NullArray, Protocol::Three) => out.extend_from_slice(b"_\r\n"),
        },
    }
}

fn aggregate(kind: u8, elements: &[Reply], protocol: Protocol, out: &mut BytesMut) {
    line(kind, &elements.len().to_string(), out);
    elements.iter().for_each(|element| emit(element, protocol, out));
}

/// A line end inside a simple string would start a new value.
fn line(kind: u8, text: &str, out: &mut BytesMut) {
    out.extend_from_slice(&[kind]);
    out.extend(text.bytes().map(|byte| if matches!(byte, b'\r' | b'\n') { b' ' } else { byte }));
    out.extend_from_slice(b"\r\n");
}

/// Takes one inline command (words as in [`words`], ended by LF) off `data`, if it holds a whole line.
pub fn inline(data: &mut BytesMut) -> Option<Result<Vec<Bytes>, Unbalanced>> {
    let end = data.iter().position(|byte| *byte == b'\n')?;
    let line = data.split_to(end);
    data.advance(1);
    Some(words::split(&line).map(|words| words.into_iter().map(Bytes::from).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &[u8]) -> Vec<Reply> {
        let (mut data, mut decoder, mut found) = (BytesMut::from(text), Decoder::new(Limits::CONTROL), Vec::new());
        while let Some(reply) = decoder.next(&mut data).unwrap() {
            found.push(reply);
        }
        found
    }

    #[test]
    fn both_protocols_decode() {
        assert_eq!(all(b"+OK\r\n:-3\r\n"), [Reply::Simple("OK".into()), Reply::Integer(-3)]);
        assert_eq!(all(b"$-1\r\n*-1\r\n_\r\n"), [Reply::Null, Reply::Null, Reply::Null]);
        assert_eq!(
            all(b"*2\r\n$1\r\na\r\n$-1\r\n"),
            [Reply::Array(vec![Reply::Bulk(Bytes::from_static(b"a")), Reply::Null])]
        );
        assert_eq!(all(b"%1\r\n+k\r\n#t\r\n"), [Reply::Array(vec![Reply::Simple("k".into()), Reply::Integer(1)])]);
        assert_eq!(all(b"-ERR no\r\n"), [Reply::Error("ERR no".into())]);
    }

    #[test]
    fn replies_round_trip() {
        let reply = Reply::Array(vec![
            Reply::Simple("OK".into()),
            Reply::Error("ERR x".into()),
            Reply::Integer(7),
            Reply::Bulk(Bytes::from_static(b"a\r\nb")),
            Reply::Null,
            Reply::Array(vec![]),
        ]);
        let mut out = BytesMut::new();
        emit(&reply, Protocol::Two, &mut out);
        assert_eq!(all(&out), std::slice::from_ref(&reply));
        out.clear();
        emit(&reply, Protocol::Three, &mut out);
        assert_eq!(all(&out), [reply]);
    }

    #[test]
    fn rich_replies_have_a_form_in_each_protocol() {
        let one = || vec![Reply::Integer(1)];
        for (reply, two, three) in [
            (Reply::map([("k", Reply::Null)]), "*2\r\n$1\r\nk\r\n$-1\r\n", "%1\r\n$1\r\nk\r\n_\r\n"),
            (Reply::set(one()), "*1\r\n:1\r\n", "~1\r\n:1\r\n"),
            (Reply::push(one()), "*1\r\n:1\r\n", ">1\r\n:1\r\n"),
            (Reply::prose("a\n"), "$2\r\na\n\r\n", "=6\r\ntxt:a\n\r\n"),
            (Reply::Rich(Rich::Double("0.5".into())), "$3\r\n0.5\r\n", ",0.5\r\n"),
            (Reply::Rich(Rich::NullArray), "*-1\r\n", "_\r\n"),
        ] {
            for (protocol, expected) in [(Protocol::Two, two), (Protocol::Three, three)] {
                let mut out = BytesMut::new();
                emit(&reply, protocol, &mut out);
                assert_eq!(std::str::from_utf8(&out).unwrap(), expected);
            }
            let mut out = BytesMut::new();
            emit(&reply, Protocol::Two, &mut out);
            assert_eq!(all(&out), [reply.flat()]);
        }
    }

    #[test]
    fn inline_commands_are_split() {
        let words =
            |words: &[&'static str]| Some(Ok(words.iter().map(|word| Bytes::from_static(word.as_bytes())).collect()));
        let mut data = BytesMut::from(&b"PING\r\n\nECHO  x\n"[..]);
        assert_eq!(inline(&mut data), words(&["PING"]));
        assert_eq!(inline(&mut data), words(&[]));
        assert_eq!(inline(&mut data), words(&["ECHO", "x"]));
        assert_eq!(inline(&mut data), None);
    }

    proptest::proptest! {
        #[test]
        fn garbage_never_panics(data in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
            let (mut data, mut decoder) = (BytesMut::from(&data[..]), Decoder::new(Limits::CONTROL));
            while let Ok(Some(_)) = decoder.next(&mut data) {}
        }

        #[test]
        fn garbage_of_the_alphabet_never_panics(data in "[*$%~>|:+_#=(,0-9\r\n-]{0,200}") {
            let (mut data, mut decoder) = (BytesMut::from(data.as_bytes()), Decoder::new(Limits::CONTROL));
            while let Ok(Some(_)) = decoder.next(&mut data) {}
        }
    }
}
