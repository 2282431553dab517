//! What became of every write that was tried around a fault, judged: which were acknowledged too late, which are lost.
//!
//! Only arithmetic: who wrote, and what is left of it, is found out by [`writers`](super::writers).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use vigie::base::Instant;

use super::{Case, Outcome};

/// What a promise that has ended may still take: the way of an acknowledgement to who waits for it, on a busy machine.
pub(crate) const GRACE: Duration = Duration::from_millis(100);
/// What is offered is measured over this time before the fault.
const BEFORE: Duration = Duration::from_secs(1);

pub(crate) const CASES: &[Case] =
    &[Case { name: "late_and_lost_writes_are_told_from_good_ones", needs: &[], run: |_| told_apart() }];

/// Names a write among all of a run: who wrote, and its number there.
pub(crate) type Id = (u16, u32);

/// A write that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Write {
    pub(crate) id: Id,
    /// The node whose redis stands behind the connection, by its own word.
    pub(crate) node: &'static str,
    /// Before it was given to the kernel.
    pub(crate) sent_at: Instant,
    /// After its acknowledgement was read; none: refused, or without a reply.
    pub(crate) acked_at: Option<Instant>,
}

/// A fault at a master, and what was promised for it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    /// Who was master when it began.
    pub(crate) old: &'static str,
    /// When it began, at the earliest.
    pub(crate) at: Instant,
    /// How long a promise lasts.
    pub(crate) lease: Duration,
    /// From when to when nobody could promise it anything; none: the fault is of another kind, and its lease may go on.
    pub(crate) deprived: Option<(Instant, Instant)>,
}

/// Attempts and acknowledgements at one node since the fault.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Share {
    pub(crate) sent: usize,
    pub(crate) acked: usize,
}

/// What is found of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// By node, since the fault.
    pub(crate) shares: BTreeMap<&'static str, Share>,
    /// All acknowledgements of the run, also those before the fault.
    pub(crate) acked: usize,
    /// From the fault to the first acknowledgement of a node that was not master before; none: there was none.
    pub(crate) takeover: Option<Duration>,
    /// Acknowledged by the old master while nobody could promise it anything, though sent after the end of its lease and the grace.
    pub(crate) after_lease: usize,
    /// Acknowledged by the old master after somebody else had acknowledged something.
    pub(crate) after_takeover: usize,
    /// From the fault to the last acknowledgement of the old master; none: there was none.
    pub(crate) last_of_old: Option<Duration>,
    /// Acknowledged and missing afterwards.
    pub(crate) lost: usize,
    /// Those of them that the old master had acknowledged before the fault: not replicated yet.
    pub(crate) lost_before: usize,
    /// Those of them that somebody else had acknowledged: never to be explained by the fault.
    pub(crate) lost_of_others: usize,
    /// What the old master was offered in the last second before the fault, per second.
    pub(crate) offered: usize,
    /// What may be lost: what is offered while the lease lasts, and the grace.
    pub(crate) bound: usize,
}

impl Verdict {
    /// Whether the old master kept to its lease, and no more is lost than that allows.
    pub(crate) fn kept(&self) -> bool {
        self.after_lease == 0 && self.after_takeover == 0 && self.lost_of_others == 0 && self.lost <= self.bound
    }

    /// The columns of its [`Display`](fmt::Display).
    pub(crate) const HEADER: &str = "takeover ms  last of old ms  after lease  after takeover  acked    lost   \
         (before, of others)  bound  sent/acked by node since the fault";
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis =
            |time: Option<Duration>| time.map_or_else(|| "never".to_owned(), |time| time.as_millis().to_string());
        let shares = self.shares.iter().map(|(node, Share { sent, acked })| format!("{node} {sent}/{acked}"));
        let (takeover, last) = (millis(self.takeover), millis(self.last_of_old));
        let Self { after_lease, after_takeover, acked, lost, lost_before, lost_of_others, bound, .. } = self;
        let parts = format!("({lost_before}, {lost_of_others})");
        write!(
            f,
            "{takeover:>11}  {last:>14}  {after_lease:>11}  {after_takeover:>14}  {acked:<7}  {lost:<5}  {parts:<19}  \
             {bound:>5}  {}",
            shares.collect::<Vec<_>>().join(", ")
        )
    }
}

/// Judges what was written around a fault by what is left of it.
pub(crate) fn judge(writes: &[Write], left: &BTreeSet<Id>, fault: Fault) -> Verdict {
    let Fault { old, at, lease, deprived } = fault;
    let mut verdict = Verdict::default();
    let of_old = |write: &&Write| write.node == old;
    let acked = |write: &Write| write.acked_at.map(|acked_at| (*write, acked_at));
    let others = writes.iter().filter(|write| !of_old(write)).filter_map(acked);
    let taken = others.map(|(_, acked_at)| acked_at).filter(|acked_at| *acked_at >= at).min();
    verdict.takeover = taken.map(|taken| taken.since(at));
    for write in writes.iter().filter(|write| write.sent_at >= at) {
        verdict.shares.entry(write.node).or_default().sent += 1;
    }
    for (write, acked_at) in writes.iter().filter_map(acked) {
        verdict.acked += 1;
        let (mine, lost) = (write.node == old, !left.contains(&write.id));
        verdict.lost += usize::from(lost);
        verdict.lost_of_others += usize::from(lost && !mine);
        if acked_at < at {
            verdict.lost_before += usize::from(lost && mine);
            continue;
        }
        verdict.shares.entry(write.node).or_default().acked += 1;
        if mine {
            let too_late = |(from, until)| write.sent_at > from + lease + GRACE && acked_at < until;
            verdict.after_lease += usize::from(deprived.is_some_and(too_late));
            verdict.after_takeover += usize::from(taken.is_some_and(|taken| acked_at > taken));
            verdict.last_of_old = verdict.last_of_old.max(Some(acked_at.since(at)));
        }
    }
    let before = |write: &&Write| (at - BEFORE..at).contains(&write.sent_at);
    verdict.offered = writes.iter().filter(of_old).filter(before).count();
    // Rounded up: who loses the one write under way keeps to it.
    let seconds = (lease + GRACE).as_secs_f64();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "small and positive"
    )]
    let bound = (verdict.offered as f64 * seconds).ceil() as usize;
    verdict.bound = bound;
    verdict
}

/// The sum of several runs; of times, the longest.
pub(crate) fn total(verdicts: &[Verdict]) -> Verdict {
    let mut sum = Verdict::default();
    for one in verdicts {
        for (node, share) in &one.shares {
            let all = sum.shares.entry(node).or_default();
            *all = Share { sent: all.sent + share.sent, acked: all.acked + share.acked };
        }
        sum = Verdict {
            shares: sum.shares,
            acked: sum.acked + one.acked,
            takeover: sum.takeover.max(one.takeover),
            after_lease: sum.after_lease + one.after_lease,
            after_takeover: sum.after_takeover + one.after_takeover,
            last_of_old: sum.last_of_old.max(one.last_of_old),
            lost: sum.lost + one.lost,
            lost_before: sum.lost_before + one.lost_before,
            lost_of_others: sum.lost_of_others + one.lost_of_others,
            offered: sum.offered + one.offered,
            bound: sum.bound + one.bound,
        };
    }
    sum
}

/// The middle one and the greatest of some times.
pub(crate) fn median_and_max(times: &mut [Duration]) -> Option<(Duration, Duration)> {
    times.sort_unstable();
    Some((*times.get(times.len() / 2)?, *times.last()?))
}

fn told_apart() -> Outcome {
    let ms = Instant::from_millis;
    let write = |number, node, sent, acked: Option<u64>| Write {
        id: (0, number),
        node,
        sent_at: ms(sent),
        acked_at: acked.map(ms),
    };
    let lease = Duration::from_millis(250);
    let fault = Fault { old: "a", at: ms(10_000), lease, deprived: Some((ms(10_000), ms(12_000))) };
    let writes = [
        // Long ago: not what was offered lately.
        write(1, "a", 8_999, Some(9_000)),
        // Acknowledged before the fault, and not replicated.
        write(2, "a", 9_998, Some(9_999)),
        // Sent before it and acknowledged after it.
        write(3, "a", 9_999, Some(10_000)),
        // The last one in time, and the first one that is not.
        write(4, "a", 10_350, Some(10_360)),
        write(5, "a", 10_351, Some(10_352)),
        // Refused, or without a reply.
        write(6, "a", 10_400, None),
        // The takeover, of what was sent by then and after it.
        write(7, "b", 10_600, Some(10_610)),
        write(8, "a", 10_340, Some(10_611)),
        write(9, "a", 10_700, Some(10_701)),
        write(10, "b", 10_700, Some(10_702)),
        // A replica acknowledges nothing, and is no takeover.
        write(11, "c", 10_001, None),
    ];
    let left = BTreeSet::from([(0, 1), (0, 7), (0, 6)]);
    let verdict = judge(&writes, &left, fault);
    let shares = BTreeMap::from([
        ("a", Share { sent: 5, acked: 5 }),
        ("b", Share { sent: 2, acked: 2 }),
        ("c", Share { sent: 1, acked: 0 }),
    ]);
    let expected = Verdict {
        shares,
        acked: 9,
        takeover: Some(Duration::from_millis(610)),
        after_lease: 2,
        after_takeover: 2,
        last_of_old: Some(Duration::from_millis(701)),
        lost: 7,
        lost_before: 1,
        lost_of_others: 1,
        offered: 2,
        bound: 1,
    };
    assert_eq!(verdict, expected);
    assert!(!verdict.kept());
    // Each reason alone is enough.
    let good = Verdict { lost: 1, bound: 1, ..Verdict::default() };
    assert!(good.kept());
    for bad in [
        Verdict { after_lease: 1, ..good.clone() },
        Verdict { after_takeover: 1, ..good.clone() },
        Verdict { lost_of_others: 1, ..good.clone() },
        Verdict { lost: 2, ..good.clone() },
    ] {
        assert!(!bad.kept(), "{bad:?}");
    }
    // Nobody else ever acknowledged: nothing is late by that.
    let alone: Vec<_> = writes.iter().copied().filter(|write| write.node == "a").collect();
    let verdict = judge(&alone, &left, fault);
    assert_eq!((verdict.takeover, verdict.after_takeover, verdict.after_lease), (None, 0, 2));
    // Whoever has promises again, or never lost them, may go on.
    let healed = Fault { deprived: Some((ms(10_000), ms(10_701))), ..fault };
    assert_eq!(judge(&alone, &left, healed).after_lease, 1);
    assert_eq!(judge(&alone, &left, Fault { deprived: None, ..fault }).after_lease, 0);
    // What others acknowledged before the fault, as masters of the time before, is no takeover either.
    let before = judge(&[write(1, "b", 9_000, Some(9_001))], &BTreeSet::new(), fault);
    assert_eq!((before.takeover, before.lost_of_others), (None, 1));
    let sum = total(&[expected.clone(), good]);
    assert_eq!((sum.lost, sum.bound, sum.takeover), (8, 2, expected.takeover));
    assert_eq!(sum.shares, expected.shares);
    let mut times = [3, 1, 2].map(Duration::from_secs);
    assert_eq!(median_and_max(&mut times), Some((Duration::from_secs(2), Duration::from_secs(3))));
    assert_eq!(median_and_max(&mut []), None);
    Ok(())
}
