//! `INFO`: sections and fields of redis-sentinel 7.0, and no others: programs and its own tests look for both.

use std::fmt::Write;
use std::time::Duration;

use bytes::Bytes;

use crate::base::Instant;
use crate::cores::sentinel::view::View;
use crate::cores::sentinel::{Answer, ClientId};

use super::ask::{Question, Usage};
use super::render;
use super::reply::{bulk, lower};
use super::session::REDIS_VERSION;
use super::state::{Asked, Server};

/// Sections, in their order.
const SECTIONS: [&str; 5] = ["server", "clients", "stats", "cpu", "sentinel"];

/// Counters of a data server that a Sentinel of Redis shows too, as zero.
const STATS_BEFORE: &str = "sync_full:0\r\nsync_partial_ok:0\r\nsync_partial_err:0\r\nexpired_keys:0\r\n\
     expired_stale_perc:0.00\r\nexpired_time_cap_reached_count:0\r\nexpire_cycle_cpu_milliseconds:0\r\nevicted_keys:0\r\n\
     evicted_clients:0\r\ntotal_eviction_exceeded_time:0\r\ncurrent_eviction_exceeded_time:0\r\nkeyspace_hits:0\r\n\
     keyspace_misses:0\r\n";
const STATS_BEHIND: &str = "pubsubshard_channels:0\r\nlatest_fork_usec:0\r\ntotal_forks:0\r\nmigrate_cached_sockets:0\r\n\
     slave_expires_tracked_keys:0\r\nactive_defrag_hits:0\r\nactive_defrag_misses:0\r\nactive_defrag_key_hits:0\r\n\
     active_defrag_key_misses:0\r\ntotal_active_defrag_time:0\r\ncurrent_active_defrag_time:0\r\ntracking_total_keys:0\r\n\
     tracking_total_items:0\r\ntracking_total_prefixes:0\r\nunexpected_error_replies:0\r\n";

impl Server {
    /// `INFO`: answered once the process has said what it uses.
    pub(super) fn info_command(&mut self, client: ClientId, sections: &[Bytes]) -> Answer {
        let sections = sections.iter().map(|section| lower(section)).collect();
        self.ask(client, Asked::Info(sections), Question::Usage)
    }

    pub(super) fn info_answer(&self, view: View<'_>, wanted: &[String], usage: &Usage, now: Instant) -> Answer {
        let all =
            wanted.is_empty() || wanted.iter().any(|name| matches!(name.as_str(), "all" | "default" | "everything"));
        let sections = SECTIONS.iter().filter(|name| all || wanted.iter().any(|one| one == *name));
        let texts: Vec<String> = sections
            .map(|name| match *name {
                "server" => info_server(view, usage, now),
                "clients" => self.info_clients(usage),
                "stats" => self.info_stats(usage, now),
                "cpu" => info_cpu(usage),
                _ => render::info_sentinel(view),
            })
            .collect();
        Answer::Reply(bulk(texts.join("\r\n")))
    }

    fn info_clients(&self, usage: &Usage) -> String {
        let tracking = self.clients.iter().filter(|(_, client)| client.tracking).count();
        format!(
            "# Clients\r\nconnected_clients:{}\r\ncluster_connections:0\r\nmaxclients:{}\r\n\
             client_recent_max_input_buffer:0\r\nclient_recent_max_output_buffer:0\r\nblocked_clients:0\r\n\
             tracking_clients:{tracking}\r\nclients_in_timeout_table:0\r\n",
            self.clients.len(),
            usage.clients_max,
        )
    }

    fn info_stats(&self, usage: &Usage, now: Instant) -> String {
        let [channels, patterns] = self.clients.subscribed();
        let mut pace = self.stats.pace;
        format!(
            "# Stats\r\ntotal_connections_received:{}\r\ntotal_commands_processed:{}\r\ninstantaneous_ops_per_sec:{}\r\n\
             total_net_input_bytes:{}\r\ntotal_net_output_bytes:{}\r\ntotal_net_repl_input_bytes:0\r\n\
             total_net_repl_output_bytes:0\r\ninstantaneous_input_kbps:0.00\r\ninstantaneous_output_kbps:0.00\r\n\
             instantaneous_input_repl_kbps:0.00\r\ninstantaneous_output_repl_kbps:0.00\r\nrejected_connections:{}\r\n\
             {STATS_BEFORE}pubsub_channels:{channels}\r\npubsub_patterns:{patterns}\r\n{STATS_BEHIND}\
             total_error_replies:{}\r\ndump_payload_sanitizations:0\r\ntotal_reads_processed:{}\r\n\
             total_writes_processed:{}\r\nio_threaded_reads_processed:0\r\nio_threaded_writes_processed:0\r\n\
             reply_buffer_shrinks:0\r\nreply_buffer_expands:0\r\n",
            usage.connections,
            self.stats.commands,
            pace.count(now, 0),
            usage.bytes_in,
            usage.bytes_out,
            usage.rejected,
            self.stats.errors,
            self.stats.commands,
            self.stats.commands,
        )
    }
}

fn info_server(view: View<'_>, usage: &Usage, now: Instant) -> String {
    let up = now.since(view.started_at()).as_secs();
    format!(
        "# Server\r\nredis_version:{REDIS_VERSION}\r\nvigie_version:{}\r\nredis_git_sha1:00000000\r\n\
         redis_git_dirty:0\r\nredis_build_id:0\r\nredis_mode:sentinel\r\nos:{}\r\narch_bits:{}\r\n\
         monotonic_clock:POSIX clock_gettime\r\nmultiplexing_api:epoll\r\natomicvar_api:c11-builtin\r\n\
         gcc_version:0.0.0\r\nprocess_id:{}\r\nprocess_supervised:no\r\nrun_id:{}\r\ntcp_port:{}\r\n\
         server_time_usec:{}\r\nuptime_in_seconds:{up}\r\nuptime_in_days:{}\r\nhz:10\r\nconfigured_hz:10\r\n\
         lru_clock:{}\r\nexecutable:{}\r\nconfig_file:{}\r\nio_threads_active:0\r\n",
        env!("CARGO_PKG_VERSION"),
        usage.os,
        usize::BITS,
        usage.pid,
        view.id(),
        usage.port,
        usage.wall.as_micros(),
        up / 86_400,
        // 24 bits of seconds.
        usage.wall.as_secs() & 0x00ff_ffff,
        usage.executable,
        usage.config_file,
    )
}

fn info_cpu(usage: &Usage) -> String {
    let mut text = "# CPU\r\n".to_owned();
    let seconds = |time: Duration| format!("{}.{:06}", time.as_secs(), time.subsec_micros());
    for (ending, (system, user)) in
        [("", usage.cpu), ("_children", usage.cpu_children), ("_main_thread", usage.cpu_thread)]
    {
        // Writing to a string cannot fail.
        let _ = write!(text, "used_cpu_sys{ending}:{}\r\nused_cpu_user{ending}:{}\r\n", seconds(system), seconds(user));
    }
    text
}
