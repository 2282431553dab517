//! A small fuzzer: mutates what is known to be interesting, and keeps what reaches code that nothing reached before.
//!
//! Coverage is seen if the compiler has put its counters in, which stable Rust can do; `tests/fuzz.rs` says how. Without them
//! mutations start from the given inputs only.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use vigie::base::Rng;

/// Executions of each target if `VIGIE_FUZZ_EXECUTIONS` does not say otherwise: seconds for all of them.
const EXECUTIONS: u64 = 5_000;
/// Longest input, bytes.
const LENGTH_MAX: usize = 16 * 1024;
/// Inputs of one target that are left as files.
const CRASHES_MAX: u64 = 10;
/// Inputs kept for their coverage.
const KEPT_MAX: usize = 4_096;
/// Where an input that breaks something is left.
const CRASHES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/fuzz-crashes");
/// What numbers are put in the place of others.
const NUMBERS: [&[u8]; 12] = [
    b"0",
    b"-1",
    b"1",
    b"255",
    b"256",
    b"65535",
    b"65536",
    b"2147483648",
    b"4294967296",
    b"9007199254740993",
    b"9223372036854775808",
    b"18446744073709551616",
];

/// Places of the compiler's counters, one range for each object that has some: first byte and length.
static COUNTERS: Mutex<Vec<(usize, usize)>> = Mutex::new(Vec::new());

/// Called by every instrumented object when the program is loaded.
#[expect(unsafe_code, reason = "the name is fixed by the compiler")]
#[unsafe(no_mangle)]
extern "C" fn __sanitizer_cov_8bit_counters_init(start: *mut u8, stop: *mut u8) {
    let (start, stop) = (start.addr(), stop.addr());
    COUNTERS.lock().unwrap_or_else(PoisonError::into_inner).push((start, stop - start));
}

/// Every counter that is not zero, by its number and the rough size of its count; all are zero afterwards.
fn take_coverage(seen: &mut BTreeSet<(u32, u8)>) -> bool {
    let ranges = COUNTERS.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let (mut number, mut news) = (0, false);
    for (start, length) in ranges {
        #[expect(unsafe_code, reason = "the counters are the compiler's")]
        // SAFETY: the range was given by the object that holds the counters, whose memory is never unmapped; one target runs
        // at a time, on this thread, so that nobody else counts.
        let counters =
            unsafe { std::slice::from_raw_parts_mut(std::ptr::with_exposed_provenance_mut::<u8>(start), length) };
        for counter in counters {
            if *counter != 0 {
                // 1, 2, 3, 4-7, 8-15, …
                let size = if *counter < 4 { *counter } else { 2 + u8::try_from(counter.ilog2()).unwrap_or(0) };
                news |= seen.insert((number, size));
                *counter = 0;
            }
            number += 1;
        }
    }
    news
}

/// What a run of one target came to.
pub(crate) struct Report {
    pub(crate) executions: u64,
    pub(crate) crashes: u64,
}

/// Runs `target` on `seeds` and mutations of them, in which words of `dictionary` turn up. Prints one line.
pub(crate) fn fuzz(name: &str, seeds: &[Vec<u8>], dictionary: &[&str], target: impl Fn(&[u8])) -> Report {
    let setting =
        |name: &str, default| std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default);
    let executions: u64 = setting("VIGIE_FUZZ_EXECUTIONS", EXECUTIONS);
    let mut rng = Rng::new(setting("VIGIE_FUZZ_SEED", 1));
    let (mut corpus, mut seen) = (seeds.to_vec(), BTreeSet::new());
    let (mut crashes, mut slowest, mut slowest_input) = (0, Duration::ZERO, Vec::new());
    take_coverage(&mut seen);
    for number in 0..executions {
        let seed = usize::try_from(number).ok().and_then(|number| seeds.get(number));
        let input = seed.cloned().unwrap_or_else(|| mutated(&corpus, dictionary, &mut rng));
        let began = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| target(&input)));
        let took = began.elapsed();
        if took > slowest {
            (slowest, slowest_input) = (took, input.clone());
        }
        if outcome.is_err() {
            crashes += 1;
            if crashes <= CRASHES_MAX {
                keep(name, crashes, &input);
            }
        }
        if take_coverage(&mut seen) && seed.is_none() && corpus.len() < KEPT_MAX {
            corpus.push(input);
        }
    }
    let places = seen.iter().map(|(number, _)| number).collect::<BTreeSet<_>>().len();
    let coverage = match places {
        0 => "no coverage compiled in".to_owned(),
        places => format!("{places} places reached, {} inputs kept", corpus.len() - seeds.len()),
    };
    println!(
        "fuzz {name}: {executions} executions, {crashes} crashes, {coverage}, slowest {:.1} ms ({} bytes)",
        slowest.as_secs_f64() * 1e3,
        slowest_input.len()
    );
    Report { executions, crashes }
}

fn keep(name: &str, number: u64, input: &[u8]) {
    let path = Path::new(CRASHES).join(format!("{name}-{number}"));
    let written = std::fs::create_dir_all(CRASHES).and_then(|()| std::fs::write(&path, input));
    eprintln!(
        "fuzz {name}: broken by {} ({written:?}): {}",
        path.display(),
        input[..input.len().min(400)].escape_ascii()
    );
}

fn below(rng: &mut Rng, limit: usize) -> usize {
    usize::try_from(rng.next_u32()).unwrap_or(0) % limit.max(1)
}

fn mutated(corpus: &[Vec<u8>], dictionary: &[&str], rng: &mut Rng) -> Vec<u8> {
    let mut input = corpus.get(below(rng, corpus.len())).cloned().unwrap_or_default();
    for _ in 0..=below(rng, 6) {
        let at = below(rng, input.len() + 1);
        let end = (at + 1 + below(rng, 32)).min(input.len());
        match below(rng, 10) {
            0 if at < input.len() => input[at] ^= 1 << below(rng, 8),
            1 if at < input.len() => input[at] = u8::try_from(below(rng, 256)).unwrap_or(0),
            2 => input.insert(at, u8::try_from(below(rng, 256)).unwrap_or(0)),
            3 if at < end => drop(input.drain(at..end)),
            4 if at < end => {
                let copy = input[at..end].to_vec();
                drop(input.splice(at..at, copy));
            }
            5 if !dictionary.is_empty() => {
                let word = dictionary[below(rng, dictionary.len())];
                drop(input.splice(at..at, word.bytes()));
            }
            6 | 7 => number(&mut input, at, rng),
            8 => {
                // Another input's end behind the beginning of this one.
                let other = &corpus[below(rng, corpus.len())];
                let from = below(rng, other.len() + 1);
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
            _ => input.truncate(input.len() - below(rng, 16).min(input.len())),
        }
    }
    input.truncate(LENGTH_MAX);
    input
}

/// Puts another number in the place of the next one behind `at`.
fn number(input: &mut Vec<u8>, at: usize, rng: &mut Rng) {
    let Some(start) = input[at..].iter().position(u8::is_ascii_digit).map(|start| at + start) else { return };
    let length = input[start..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    drop(input.splice(start..start + length, NUMBERS[below(rng, NUMBERS.len())].iter().copied()));
}
