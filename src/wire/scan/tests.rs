use proptest::prelude::*;

use super::*;

/// All ends of values in `data`, given in pieces cut at `cuts`.
fn ends(data: &[u8], cuts: &[usize]) -> Result<Vec<usize>, Malformed> {
    let mut scanner = Scanner::new(Limits::CONTROL);
    let (mut start, mut found) = (0, Vec::new());
    let mut stops: Vec<usize> = cuts.iter().map(|cut| cut % (data.len() + 1)).collect();
    stops.push(data.len());
    stops.sort_unstable();
    for stop in stops {
        while start < stop {
            let (used, ended) = scanner.advance(&data[start..stop])?;
            start += used;
            if ended {
                found.push(start);
            } else {
                break;
            }
        }
    }
    Ok(found)
}

const MIXED: &[u8] =
    b"+OK\r\n$5\r\nhello\r\n*2\r\n$-1\r\n*1\r\n:7\r\n%1\r\n+k\r\n_\r\n*0\r\n$0\r\n\r\n|1\r\n+a\r\n+b\r\n:1\r\n*-1\r\n";

#[test]
fn ends_of_values_are_found() {
    let found = ends(MIXED, &[]).unwrap();
    let values: Vec<&[u8]> =
        std::iter::once(0).chain(found.iter().copied()).zip(&found).map(|(from, to)| &MIXED[from..*to]).collect();
    assert_eq!(
        values,
        [
            &b"+OK\r\n"[..],
            b"$5\r\nhello\r\n",
            b"*2\r\n$-1\r\n*1\r\n:7\r\n",
            b"%1\r\n+k\r\n_\r\n",
            b"*0\r\n",
            b"$0\r\n\r\n",
            b"|1\r\n+a\r\n+b\r\n:1\r\n",
            b"*-1\r\n"
        ]
    );
}

#[test]
fn limits_hold() {
    assert_eq!(ends(b"?\r\n", &[]), Err(Malformed::Type(b'?')));
    assert!(matches!(ends(b"$99999999\r\n", &[]), Err(Malformed::TooLarge { .. })));
    assert!(matches!(ends(b"*99999999\r\n", &[]), Err(Malformed::TooLarge { .. })));
    assert!(matches!(ends(&b"*1\r\n".repeat(10), &[]), Err(Malformed::TooLarge { what: "nesting", .. })));
    assert!(matches!(ends(&[b'+'; LINE_MAX + 9], &[]), Err(Malformed::TooLarge { what: "line", .. })));
    assert!(matches!(ends(b"$-2\r\n", &[]), Err(Malformed::Length(_))));
    assert_eq!(ends(b"$2\r\nabcd", &[]), Err(Malformed::BulkEnd));
}

proptest! {
    #[test]
    fn any_split_parses_alike(cuts in prop::collection::vec(any::<usize>(), 0..20)) {
        prop_assert_eq!(ends(MIXED, &cuts).unwrap(), ends(MIXED, &[]).unwrap());
    }

    #[test]
    fn garbage_never_panics(data in prop::collection::vec(any::<u8>(), 0..300), cuts in prop::collection::vec(any::<usize>(), 0..9)) {
        let _ = ends(&data, &cuts);
    }

    #[test]
    fn garbage_of_the_alphabet_never_panics(data in "[*$%~>|:+_0-9\r\n-]{0,200}", cuts in prop::collection::vec(any::<usize>(), 0..9)) {
        let _ = ends(data.as_bytes(), &cuts);
    }
}
