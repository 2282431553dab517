//! What a redis-server says of itself.

use std::fmt::Write;

use vigie::base::{Instant, RunId};

use super::replication::Attached;
use super::server::{Link, Server};

impl Server {
    /// The section of that name, in capitals; all of them if there is none.
    pub(super) fn info(&self, section: &str, now: Instant, replicas: &[Attached]) -> String {
        let has = |name: &str| section.is_empty() || section == name;
        let mut text = String::new();
        if has("SERVER") {
            let _ = write!(text, "run_id:{}\r\nprocess_id:{}\r\n", self.run_id, self.pid);
        }
        if has("PERSISTENCE") {
            let (loading, rewriting) = (u8::from(self.loading), u8::from(self.rewriting));
            let _ = write!(text, "loading:{loading}\r\naof_rewrite_in_progress:{rewriting}\r\n");
        }
        if has("REPLICATION") {
            self.info_replication(&mut text, now, replicas);
        }
        if has("KEYSPACE") {
            text += "# Keyspace\r\n";
            if !self.data.is_empty() {
                let _ = write!(text, "db0:keys={},expires=0,avg_ttl=0\r\n", self.data.len());
            }
        }
        text
    }

    fn info_replication(&self, text: &mut String, now: Instant, replicas: &[Attached]) {
        let offset = self.offset().max(0);
        match self.master {
            None => {
                text.push_str("role:master\r\n");
                if !self.without_offset {
                    let _ = write!(text, "master_repl_offset:{offset}\r\n");
                }
                for (place, Attached { address, online, offset }) in replicas.iter().enumerate() {
                    let state = if *online { "online" } else { "wait_bgsave" };
                    let (ip, port) = ((self.hosts.told)(*address), address.port());
                    let _ = write!(text, "slave{place}:ip={ip},port={port},state={state},offset={offset},lag=0\r\n");
                }
            }
            Some(master) => {
                let (ip, port) = ((self.hosts.told)(master), master.port());
                let _ = write!(text, "role:slave\r\nmaster_host:{ip}\r\nmaster_port:{port}\r\n");
                if !self.without_offset {
                    let _ = write!(text, "slave_repl_offset:{offset}\r\n");
                }
                let copying = u8::from(matches!(self.link, Link::Copying(_)));
                let _ = write!(text, "slave_priority:{}\r\nmaster_sync_in_progress:{copying}\r\n", self.priority);
                match self.link {
                    Link::Up => text.push_str("master_link_status:up\r\n"),
                    Link::Down(Some(since)) | Link::Copying(Some(since)) => {
                        let seconds = now.since(since).as_secs();
                        let _ = write!(text, "master_link_status:down\r\nmaster_link_down_since_seconds:{seconds}\r\n");
                    }
                    Link::None | Link::Down(None) | Link::Copying(None) => {
                        text.push_str("master_link_status:down\r\nmaster_link_down_since_seconds:-1\r\n");
                    }
                }
            }
        }
        let earlier = self.replid2.map_or(RunId([0; 20]), |(earlier, _)| earlier);
        let _ = write!(text, "master_replid:{}\r\nmaster_replid2:{earlier}\r\n", self.replid);
    }
}
