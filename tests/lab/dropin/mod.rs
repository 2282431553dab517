//! vigie in the place of redis-sentinel, with real processes and without a cluster of its own: beside stock sentinels, while
//! leaders die, disks fill and clocks are set.

pub(crate) mod clock;
mod disk;
mod mixed;
mod record;
mod steps;
mod world;

use super::Case;
use world::Kind;

const REDIS_7: &[&str] = &["redis-server"];
const FAKETIME: &[&str] = &["redis-server", "lib-faketime"];
const VALKEY: &[&str] = &["valkey-server"];

/// In every run.
pub(crate) const CASES: &[Case] = &[
    Case { name: "mixed_a_few", needs: REDIS_7, run: mixed::a_few },
    Case { name: "leader_dies_at_a_few_steps", needs: REDIS_7, run: steps::a_few },
    Case { name: "disk_is_full", needs: REDIS_7, run: disk::full },
    Case { name: "clock_is_set", needs: FAKETIME, run: clock::a_few },
    Case { name: "disk_damaged_files", needs: REDIS_7, run: disk::damaged_files },
];

macro_rules! cells {
    ($name:literal, $needs:ident, $kind:ident, $stock:literal) => {
        Case { name: $name, needs: $needs, run: |sandbox| mixed::all(sandbox, Kind::$kind, $stock) }
    };
}

/// Run only when they are asked for by name: minutes each.
pub(crate) const LONG: &[Case] = &[
    cells!("dropin_mixed_redis_7_one_stock", REDIS_7, Redis7, 1),
    cells!("dropin_mixed_redis_7_two_stock", REDIS_7, Redis7, 2),
    cells!("dropin_mixed_valkey_9_one_stock", VALKEY, Valkey9, 1),
    cells!("dropin_mixed_valkey_9_two_stock", VALKEY, Valkey9, 2),
    // Without any of ours, and with ours alone, to compare with.
    cells!("dropin_mixed_redis_7_none_stock", REDIS_7, Redis7, 0),
    cells!("dropin_mixed_redis_7_all_stock", REDIS_7, Redis7, 3),
    Case { name: "dropin_disk_full_and_read_only", needs: REDIS_7, run: disk::full_and_read_only },
    Case { name: "dropin_clock_is_set", needs: FAKETIME, run: clock::each },
    Case { name: "dropin_clock_is_set_stock", needs: FAKETIME, run: clock::stock },
    Case { name: "dropin_leader_dies_at_each_step", needs: REDIS_7, run: steps::each },
];
