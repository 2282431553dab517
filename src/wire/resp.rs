//! RESP values of control connections: commands out, replies in, and the other way round for our own servers.
//!
//! Decoding is `redis-protocol`'s, behind [`scan`](super::scan): that decoder recurses without a limit, so it is only given
//! complete values within [`Limits`].

use bytes::{Buf, Bytes, BytesMut};
use redis_protocol::resp3::{decode, types::BytesFrame};

use super::scan::{Limits, Malformed, Scanner};

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
}

impl Reply {
    /// The text of a simple or bulk string, if it is UTF-8.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Simple(text) => Some(text),
            Self::Bulk(bytes) => std::str::from_utf8(bytes).ok(),
            Self::Error(_) | Self::Integer(_) | Self::Null | Self::Array(_) => None,
        }
    }

    /// The elements of an array.
    pub fn array(&self) -> Option<&[Self]> {
        match self {
            Self::Array(elements) => Some(elements),
            Self::Simple(_) | Self::Error(_) | Self::Integer(_) | Self::Bulk(_) | Self::Null => None,
        }
    }

    /// An integer, or a string that is one.
    pub fn integer(&self) -> Option<i64> {
        match self {
            Self::Integer(number) => Some(*number),
            Self::Simple(_) | Self::Bulk(_) => self.text()?.parse().ok(),
            Self::Error(_) | Self::Null | Self::Array(_) => None,
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

/// Appends a reply in RESP2. A null is a null bulk string.
pub fn emit(reply: &Reply, out: &mut BytesMut) {
    match reply {
        Reply::Simple(text) => line(b'+', text, out),
        Reply::Error(text) => line(b'-', text, out),
        Reply::Integer(number) => line(b':', &number.to_string(), out),
        Reply::Bulk(bytes) => bulk(bytes, out),
        Reply::Null => out.extend_from_slice(b"$-1\r\n"),
        Reply::Array(elements) => {
            line(b'*', &elements.len().to_string(), out);
            elements.iter().for_each(|element| emit(element, out));
        }
    }
}

/// A line end inside a simple string would start a new value.
fn line(kind: u8, text: &str, out: &mut BytesMut) {
    out.extend_from_slice(&[kind]);
    out.extend(text.bytes().map(|byte| if matches!(byte, b'\r' | b'\n') { b' ' } else { byte }));
    out.extend_from_slice(b"\r\n");
}

/// Takes one inline command (words parted by blanks, ended by LF) off `data`, if it holds a whole line.
/// Quoting is not understood: who needs it sends RESP.
pub fn inline(data: &mut BytesMut) -> Option<Vec<Bytes>> {
    let end = data.iter().position(|byte| *byte == b'\n')?;
    let line = data.split_to(end).freeze();
    data.advance(1);
    let words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    Some(words.map(|word| line.slice_ref(word)).collect())
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
        emit(&reply, &mut out);
        assert_eq!(all(&out), [reply]);
    }

    #[test]
    fn inline_commands_are_split() {
        let mut data = BytesMut::from(&b"PING\r\n\nECHO  x\n"[..]);
        assert_eq!(inline(&mut data), Some(vec![Bytes::from_static(b"PING")]));
        assert_eq!(inline(&mut data), Some(vec![]));
        assert_eq!(inline(&mut data), Some(vec![Bytes::from_static(b"ECHO"), Bytes::from_static(b"x")]));
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
