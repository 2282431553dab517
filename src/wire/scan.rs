//! Finds where a RESP value ends, without holding it: the bounded guard in front of every decoder.
//!
//! Nesting, line length and sizes are limited here, so that what stands behind (a recursive decoder) is only ever given
//! complete values of known size. The state is a few words whatever the size of the value.
//! RESP2 and RESP3: <https://redis.io/docs/latest/develop/reference/protocol-spec/>.

/// Deepest nesting of arrays, maps, sets, pushes and attributes.
pub const DEPTH_MAX: usize = 9;
/// Longest line (a header, a simple string, an error), bytes without its end.
pub const LINE_MAX: usize = 64 * 1024;

/// What a value may be at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest bulk string, bytes.
    pub bulk_max: u64,
    /// Most elements of one aggregate.
    pub elements_max: u64,
}

impl Limits {
    /// What a redis-server itself takes by default: `proto-max-bulk-len` 512 MB, 1,048,576 elements.
    pub const SERVER: Self = Self { bulk_max: 512 * 1024 * 1024, elements_max: 1024 * 1024 };
    /// Enough for replies and commands of control connections.
    pub const CONTROL: Self = Self { bulk_max: 1024 * 1024, elements_max: 64 * 1024 };
}

/// Why bytes are not RESP, or not within the limits.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The first byte of a value names no type.
    #[error("byte {0:#04x} starts no RESP value")]
    Type(u8),
    /// A length that is no number, or negative where it must not be.
    #[error("invalid length {0:?}")]
    Length(String),
    /// A value larger than allowed.
    #[error("{what} of {size} exceeds the limit of {limit}")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// How large it says it is.
        size: u64,
        /// How large it may be.
        limit: u64,
    },
    /// A bulk string without CR LF at its end.
    #[error("a bulk string does not end in CR LF")]
    BulkEnd,
}

/// Finds the end of one value after the other in a stream that comes in pieces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scanner {
    limits: Limits,
    /// Elements still owed on each open level.
    owed: heapless::Vec<u64, DEPTH_MAX>,
    /// Bytes of a bulk string (with its CR LF) still to come.
    bulk: u64,
    /// Bytes of the piece given already looked at for the end of a line.
    seen: usize,
}

impl Scanner {
    /// A scanner at the start of a value.
    pub fn new(limits: Limits) -> Self {
        Self { limits, owed: heapless::Vec::new(), bulk: 0, seen: 0 }
    }

    /// Whether it stands between two values.
    pub fn at_boundary(&self) -> bool {
        self.owed.is_empty() && self.bulk == 0 && self.seen == 0
    }

    /// Looks at `data`, the bytes that follow what was consumed before. Returns how many of them are consumed, and whether a
    /// value ended exactly there. What is not consumed (an incomplete line) must be given again, with more behind it.
    pub fn advance(&mut self, data: &[u8]) -> Result<(usize, bool), Malformed> {
        let mut used = 0;
        loop {
            if self.bulk > 0 {
                let left = data.len() - used;
                let take = usize::try_from(self.bulk).unwrap_or(usize::MAX).min(left);
                self.check_bulk_end(&data[used..used + take])?;
                used += take;
                self.bulk -= take as u64;
                if self.bulk > 0 {
                    return Ok((used, false));
                }
                if self.ended() {
                    return Ok((used, true));
                }
                continue;
            }
            let Some(line) = self.line(&data[used..])? else { return Ok((used, false)) };
            let text = &data[used..used + line];
            used += line + 2;
            if self.begin(text)? {
                return Ok((used, true));
            }
        }
    }

    /// The last two bytes of the bulk must be CR LF; `piece` are its next bytes.
    fn check_bulk_end(&self, piece: &[u8]) -> Result<(), Malformed> {
        let left = self.bulk;
        let wrong = |at_end: u64, byte: u8| {
            // `at_end` 2: the CR, 1: the LF.
            left >= at_end
                && usize::try_from(left - at_end).ok().and_then(|at| piece.get(at)).is_some_and(|found| *found != byte)
        };
        if wrong(2, b'\r') || wrong(1, b'\n') { Err(Malformed::BulkEnd) } else { Ok(()) }
    }

    /// Length of the complete line at the start of `data`, without its CR LF.
    fn line(&mut self, data: &[u8]) -> Result<Option<usize>, Malformed> {
        // One step back: the CR may have been the last byte seen.
        let from = self.seen.saturating_sub(1);
        let end = data.get(from..).and_then(|rest| rest.windows(2).position(|pair| pair == b"\r\n"));
        let length = end.map_or(data.len(), |at| from + at);
        if length > LINE_MAX {
            return Err(Malformed::TooLarge { what: "line", size: length as u64, limit: LINE_MAX as u64 });
        }
        self.seen = if end.is_some() { 0 } else { data.len() };
        Ok(end.map(|_| length))
    }

    /// Takes in one line at the start of a value; true if the outermost value ended with it.
    fn begin(&mut self, line: &[u8]) -> Result<bool, Malformed> {
        let Some((kind, rest)) = line.split_first() else { return Err(Malformed::Type(b'\r')) };
        match kind {
            b'+' | b'-' | b':' | b'_' | b',' | b'#' | b'(' => Ok(self.ended()),
            b'$' | b'!' | b'=' => {
                let Some(length) = length(rest)? else { return Ok(self.ended()) };
                self.limit("bulk string", length, self.limits.bulk_max)?;
                self.bulk = length + 2;
                Ok(false)
            }
            b'*' | b'~' | b'>' => self.open(rest, 1),
            b'%' => self.open(rest, 2),
            // An attribute precedes the value it belongs to: its pairs, and then that value in its own place.
            b'|' => {
                if let Some(pairs) = length(rest)?.filter(|pairs| *pairs > 0) {
                    self.push(pairs.saturating_mul(2).saturating_add(1))?;
                }
                Ok(false)
            }
            other => Err(Malformed::Type(*other)),
        }
    }

    fn open(&mut self, count: &[u8], per_element: u64) -> Result<bool, Malformed> {
        match length(count)? {
            None | Some(0) => Ok(self.ended()),
            Some(count) => self.push(count.saturating_mul(per_element)).map(|()| false),
        }
    }

    fn push(&mut self, elements: u64) -> Result<(), Malformed> {
        self.limit("aggregate", elements, self.limits.elements_max)?;
        self.owed.push(elements).map_err(|_| Malformed::TooLarge {
            what: "nesting",
            size: DEPTH_MAX as u64 + 1,
            limit: DEPTH_MAX as u64,
        })
    }

    fn limit(&self, what: &'static str, size: u64, limit: u64) -> Result<(), Malformed> {
        if size > limit { Err(Malformed::TooLarge { what, size, limit }) } else { Ok(()) }
    }

    /// Counts one ended value on each level that it completes; true if nothing is open any more.
    fn ended(&mut self) -> bool {
        while let Some(owed) = self.owed.last_mut() {
            *owed -= 1;
            if *owed > 0 {
                return false;
            }
            self.owed.pop();
        }
        true
    }
}

/// A length line; none for the null of RESP2 (`-1`).
fn length(digits: &[u8]) -> Result<Option<u64>, Malformed> {
    if digits == b"-1" {
        return Ok(None);
    }
    let wrong = || Malformed::Length(String::from_utf8_lossy(&digits[..digits.len().min(32)]).into_owned());
    if digits.is_empty() || digits.len() > 19 || !digits.iter().all(u8::is_ascii_digit) {
        return Err(wrong());
    }
    std::str::from_utf8(digits).ok().and_then(|text| text.parse().ok()).map(Some).ok_or_else(wrong)
}

#[cfg(test)]
mod tests;
