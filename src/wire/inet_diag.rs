//! TCP connections of this host as the kernel lists them, and the order to end one (sock_diag(7), `linux/inet_diag.h`).

/// A request is so long, its header included.
pub const REQUEST_LEN: usize = HEADER_LEN + 8 + ID_LEN;

/// `struct nlmsghdr` (netlink(7))
const HEADER_LEN: usize = 16;
/// `struct inet_diag_sockid`: ports, addresses, interface, cookie.
const ID_LEN: usize = 48;
/// `struct inet_diag_msg`, without the attributes behind it.
const LISTED_LEN: usize = 4 + ID_LEN + 20;

// Types of messages, and flags (`linux/netlink.h`, `linux/sock_diag.h`).
const ERROR: u16 = 2;
const DONE: u16 = 3;
const BY_FAMILY: u16 = 20;
const DESTROY: u16 = 21;
const REQUEST: u16 = 1;
const ACK: u16 = 4;
const DUMP: u16 = 0x300;

const TCP: u8 = 6;
/// The states in which what was sent may wait for its acknowledgement: ESTABLISHED, FIN_WAIT1, CLOSE_WAIT, LAST_ACK, CLOSING
/// (`net/tcp_states.h`).
const SENDING: u32 = 1 << 1 | 1 << 4 | 1 << 8 | 1 << 9 | 1 << 11;

/// Of which addresses a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Family {
    /// AF_INET
    V4 = 2,
    /// AF_INET6
    V6 = 10,
}

/// A connection in the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    family: u8,
    id: [u8; ID_LEN],
    /// How often in a row what was sent first and not acknowledged has been sent again, or how often a peer that takes nothing
    /// has been probed.
    pub retries: u8,
    /// Bytes that were written and not acknowledged by the peer.
    pub undelivered: u32,
}

/// What the kernel says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// One in the list.
    Connection(Connection),
    /// The list has ended.
    Done,
    /// The order was carried out.
    Acknowledged,
    /// The request was refused, for the reason of this number (errno(3)).
    Refused(i32),
    /// Something that was not asked for.
    Other,
}

/// Asks for all connections at that local port over which something may be undelivered.
pub fn list(family: Family, port: u16) -> [u8; REQUEST_LEN] {
    let mut id = [0; ID_LEN];
    id[..2].copy_from_slice(&port.to_be_bytes());
    request(BY_FAMILY, REQUEST | DUMP, family as u8, SENDING, &id)
}

/// Orders to end a connection: what is undelivered is dropped, both sides get an error.
pub fn end(connection: &Connection) -> [u8; REQUEST_LEN] {
    request(DESTROY, REQUEST | ACK, connection.family, u32::MAX, &connection.id)
}

fn request(kind: u16, flags: u16, family: u8, states: u32, id: &[u8; ID_LEN]) -> [u8; REQUEST_LEN] {
    let mut bytes = [0; REQUEST_LEN];
    let mut rest = &mut bytes[..];
    let mut put = |field: &[u8]| {
        let (here, behind) = std::mem::take(&mut rest).split_at_mut(field.len());
        here.copy_from_slice(field);
        rest = behind;
    };
    put(&(REQUEST_LEN as u32).to_ne_bytes());
    put(&kind.to_ne_bytes());
    put(&flags.to_ne_bytes());
    // Sequence number, and who asks: one question at a time.
    put(&[0; 8]);
    put(&[family, TCP, 0, 0]);
    put(&states.to_ne_bytes());
    put(id);
    bytes
}

/// The messages of a datagram from the kernel. Ends where one is shorter than it says.
pub fn messages(datagram: &[u8]) -> impl Iterator<Item = Message> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let header = rest.first_chunk::<HEADER_LEN>()?;
        let length = usize::try_from(u32::from_ne_bytes(*header.first_chunk()?)).ok()?;
        let kind = u16::from_ne_bytes([header[4], header[5]]);
        let content = rest.get(HEADER_LEN..length)?;
        // Messages begin at multiples of 4.
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message(kind, content))
    })
}

fn message(kind: u16, content: &[u8]) -> Message {
    match kind {
        DONE => Message::Done,
        ERROR => match content.first_chunk().map(|errno| i32::from_ne_bytes(*errno)) {
            Some(0) => Message::Acknowledged,
            Some(errno) => Message::Refused(errno.saturating_neg()),
            None => Message::Other,
        },
        BY_FAMILY => content.first_chunk().map_or(Message::Other, |listed| Message::Connection(connection(listed))),
        _ => Message::Other,
    }
}

fn connection(listed: &[u8; LISTED_LEN]) -> Connection {
    let [family, _state, _timer, retries, rest @ ..] = *listed;
    let mut id = [0; ID_LEN];
    id.copy_from_slice(&rest[..ID_LEN]);
    // When its timer expires, what it has not read, what it has not delivered.
    let undelivered = &rest[ID_LEN + 8..][..4];
    let undelivered = undelivered.first_chunk().map_or(0, |bytes| u32::from_ne_bytes(*bytes));
    Connection { family, id, retries, undelivered }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Laid out as in the headers: 10.0.0.1:6379 and 10.0.0.2:40000, with 5 bytes undelivered and sent again three times. That the
    /// kernel does so, too, shows where connections are really ended.
    fn listed() -> Vec<u8> {
        let mut bytes = Vec::new();
        let length = u32::try_from(HEADER_LEN + LISTED_LEN + 5).unwrap();
        bytes.extend(length.to_ne_bytes());
        bytes.extend(BY_FAMILY.to_ne_bytes());
        bytes.extend([2, 0, 0, 0, 0, 0, 9, 9, 9, 9]);
        bytes.extend([2, 1, 1, 3]);
        bytes.extend([0x18, 0xeb, 0x9c, 0x40]);
        bytes.extend([10, 0, 0, 1].iter().chain(&[0; 12]).chain(&[10, 0, 0, 2]).chain(&[0; 12]));
        bytes.extend([1, 0, 0, 0, 7, 7, 7, 7, 8, 8, 8, 8]);
        for field in [200_u32, 0, 5, 112, 4_242] {
            bytes.extend(field.to_ne_bytes());
        }
        // An attribute: 1 byte, padded.
        bytes.extend([5, 0, 8, 0, 0, 0, 0, 0]);
        bytes
    }

    fn header(length: u32, kind: u16) -> Vec<u8> {
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes
    }

    #[test]
    fn a_list_is_read_and_who_is_in_it_can_be_named() {
        let mut datagram = listed();
        datagram.extend(listed());
        datagram.extend(header(20, DONE));
        datagram.extend([0; 4]);
        let messages: Vec<_> = messages(&datagram).collect();
        let [Message::Connection(one), Message::Connection(other), Message::Done] = &messages[..] else {
            panic!("{messages:?}");
        };
        assert_eq!((one, one.retries, one.undelivered), (other, 3, 5));
        let order = end(one);
        assert_eq!(order[..4], 72_u32.to_ne_bytes());
        assert_eq!(order[4..8], [DESTROY.to_ne_bytes(), 5_u16.to_ne_bytes()].concat());
        assert_eq!(order[16..24], [2, 6, 0, 0, 255, 255, 255, 255]);
        assert_eq!(order[24..], listed()[20..68], "the kernel finds it by what it has told");
    }

    #[test]
    fn a_list_is_asked_for_by_the_port() {
        let question = list(Family::V6, 6379);
        assert_eq!(question[4..8], [BY_FAMILY.to_ne_bytes(), 0x301_u16.to_ne_bytes()].concat());
        assert_eq!(question[16..18], [10, 6]);
        assert_eq!(question[24..28], [0x18, 0xeb, 0, 0]);
        assert_eq!(question[28..], [0; 44]);
    }

    #[test]
    fn refusals_and_what_is_cut_short() {
        let said = |errno: i32| {
            let mut bytes = header(36, ERROR);
            bytes.extend(errno.to_ne_bytes());
            bytes.extend([0; 16]);
            messages(&bytes).collect::<Vec<_>>()
        };
        assert_eq!(said(0), [Message::Acknowledged]);
        assert_eq!(said(-95), [Message::Refused(95)]);
        let whole = listed();
        assert_eq!(messages(&whole).count(), 1);
        for length in 0..whole.len() - 3 {
            assert_eq!(messages(&whole[..length]).count(), 0, "{length} bytes");
        }
        assert_eq!(messages(&header(0, DONE)).count(), 0, "shorter than a header");
        assert_eq!(messages(&header(16, BY_FAMILY)).collect::<Vec<_>>(), [Message::Other]);
        assert_eq!(messages(&header(16, 99)).collect::<Vec<_>>(), [Message::Other]);
    }
}
