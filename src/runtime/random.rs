//! Chance, from the kernel and from nowhere else.

use std::io;

/// So many bytes that nobody can guess.
pub fn bytes<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    fill(&mut bytes)?;
    Ok(bytes)
}

/// The same for a number of bytes that is known later.
pub fn fill(bytes: &mut [u8]) -> io::Result<()> {
    Ok(getrandom::fill(bytes)?)
}

/// A number that no other start has.
pub fn number() -> io::Result<u64> {
    Ok(u64::from_le_bytes(bytes()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_are_the_same() {
        let [one, other] = [bytes::<32>().unwrap(), bytes::<32>().unwrap()];
        assert!(one != other && one != [0; 32]);
        assert_ne!(number().unwrap(), number().unwrap());
    }
}
