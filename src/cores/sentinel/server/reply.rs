//! Answers and the words of calls: what every command needs to read the one and write the other.

use bytes::Bytes;

use crate::cores::sentinel::Answer;
use crate::wire::resp::Reply;

pub(super) fn simple(text: &str) -> Answer {
    Answer::Reply(Reply::Simple(text.to_owned()))
}

pub(super) fn error(text: impl Into<String>) -> Answer {
    Answer::Reply(Reply::Error(text.into()))
}

pub(super) fn bulk(text: impl Into<Bytes>) -> Reply {
    Reply::Bulk(text.into())
}

/// No answer, or one that is given in another way.
pub(super) fn nothing() -> Answer {
    Answer::Many(vec![])
}

/// Number of a client or of bytes as Redis has it.
pub(super) fn integer(number: impl TryInto<i64>) -> Reply {
    Reply::Integer(number.try_into().unwrap_or(i64::MAX))
}

pub(super) fn syntax() -> Answer {
    error("ERR syntax error")
}

/// The error for a wrong number of words.
pub(super) fn wrong_arity(name: &str) -> String {
    format!("ERR wrong number of arguments for '{name}' command")
}

pub(super) fn arity(command: &str) -> Answer {
    error(wrong_arity(command))
}

pub(super) fn lower(word: &[u8]) -> String {
    String::from_utf8_lossy(&word[..word.len().min(64)]).to_ascii_lowercase()
}

pub(super) fn text(word: &[u8]) -> &str {
    std::str::from_utf8(word).unwrap_or("")
}

/// Words as text; what is no UTF-8 is made so.
pub(super) fn words(args: &[Bytes]) -> Vec<String> {
    args.iter().map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}
