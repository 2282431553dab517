//! What a supervisor reads out of the `INFO` of its redis.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::base::RunId;
use crate::base::node::RedisRole;
use crate::wire::info::{Info as Text, Role};

/// One look at a redis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// Whether it still reads its data from disk.
    pub loading: bool,
    /// Run id and process id, if they were asked for.
    pub identity: Option<(RunId, u32)>,
    /// Its replication role.
    pub role: RedisRole,
    /// The lineage of its data.
    pub replication_id: Option<RunId>,
    /// Its replication offset, bytes; on a replica what it has applied.
    pub offset: u64,
    /// Whether it holds any key.
    pub has_data: bool,
    /// Whether it rewrites its append-only file, or is about to. After a full copy, what it holds is on disk only when
    /// that has ended; until then the file is the one from before.
    pub rewriting: bool,
}

impl Info {
    /// Reads the sections `replication`, `persistence`, `keyspace` and, if it was asked for, `server`, in one text. None if the text
    /// names no role, which every version of redis does.
    pub fn read(loading: bool, sections: &str) -> Option<Self> {
        let text = Text::parse(sections);
        let role = match text.role? {
            Role::Master => {
                let online = text.replicas.iter().filter(|replica| replica.online).count();
                RedisRole::Master { replicas: u8::try_from(online).unwrap_or(u8::MAX) }
            }
            Role::Replica if text.is_closed() => RedisRole::Closed,
            // A host name was not set by vigie, whose configuration holds addresses: it stands for "somebody else".
            Role::Replica => RedisRole::Replica {
                of: text.master().unwrap_or(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0)),
                link_up: text.master_link_up && !text.master_sync_in_progress,
            },
            Role::Sentinel => return None,
        };
        let pid = sections.lines().find_map(|line| line.strip_prefix("process_id:")?.trim_end().parse().ok());
        Some(Self {
            loading: loading || text.loading,
            identity: text.run_id.zip(pid),
            role,
            replication_id: text.master_replid,
            // Both count what a replica has applied; the second outlives a broken link.
            offset: text.slave_repl_offset.unwrap_or(0).max(text.master_repl_offset.unwrap_or(0)),
            has_data: text.has_keys.unwrap_or(false),
            rewriting: sections
                .lines()
                .map(str::trim_end)
                .any(|line| matches!(line, "aof_rewrite_in_progress:1" | "aof_rewrite_scheduled:1")),
        })
    }
}
