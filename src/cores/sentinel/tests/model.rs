//! What a scripted redis answers.

use crate::wire::resp::Reply;

use super::super::*;
use super::world::{World, id, ms, redis_at};

impl World {
    pub(super) fn redis_command(&mut self, n: usize, key: (usize, LinkId), words: &[String]) -> Reply {
        let ok = || Reply::Simple("OK".into());
        let error = |text: &str| Reply::Error(text.into());
        let word = |at: usize| words.get(at).map_or(String::new(), |word| word.to_ascii_uppercase());
        let Some(wire) = self.wires.get_mut(&key) else { return Reply::Null };
        if let Some(queued) = wire.multi.as_mut().filter(|_| word(0) != "EXEC") {
            queued.push(words.to_vec());
            return Reply::Simple("QUEUED".into());
        }
        if word(0) == "AUTH" {
            return match &self.redis[n].password {
                None => error("ERR AUTH <password> called without any password configured for the default user."),
                Some(password) if *password == words[1] => {
                    wire.authenticated = true;
                    ok()
                }
                Some(_) => error("WRONGPASS invalid username-password pair or user is disabled."),
            };
        }
        if self.redis[n].password.is_some() && !wire.authenticated {
            return error("NOAUTH Authentication required.");
        }
        match (word(0).as_str(), word(1).as_str()) {
            ("MULTI", _) => {
                wire.multi = Some(vec![]);
                ok()
            }
            ("EXEC", _) => {
                let queued = wire.multi.take().unwrap_or_default();
                Reply::Array(queued.iter().map(|words| self.redis_command(n, key, words)).collect())
            }
            ("PING", _) if self.redis[n].loading => error("LOADING Redis is loading the dataset in memory"),
            ("PING", _) => Reply::Simple("PONG".into()),
            ("SUBSCRIBE", _) => {
                wire.subscribed = true;
                Reply::Null
            }
            ("PUBLISH", _) => {
                let to: Vec<_> = self
                    .wires
                    .iter()
                    .filter(|(_, wire)| wire.subscribed && wire.address == redis_at(n))
                    .map(|(key, _)| *key)
                    .collect();
                for (sentinel, link) in to {
                    if self.reach(sentinel, n) {
                        self.give(sentinel, Input::Message(link, Bytes::from(words[2].clone())));
                    }
                }
                Reply::Integer(1)
            }
            ("INFO", _) => Reply::Bulk(self.info_text(n).into()),
            ("ROLE", _) => {
                let role = if self.redis[n].master.is_none() { "master" } else { "slave" };
                Reply::Array(vec![Reply::Bulk(role.into())])
            }
            ("REPLICAOF" | "SLAVEOF", "NO") => {
                self.redis[n].log.push("REPLICAOF NO ONE".into());
                if self.redis[n].master.take().is_none() {
                    return ok();
                }
                // What is still in the socket of the old master is lost.
                self.redis[n].undrained = 0;
                self.redis[n].drain_at = None;
                self.count += 1;
                self.redis[n].earlier = Some(self.redis[n].lineage);
                self.redis[n].lineage = id(9, n, self.count);
                ok()
            }
            ("REPLICAOF" | "SLAVEOF", _) => {
                let to = SocketAddr::new(words[1].parse().unwrap(), words[2].parse().unwrap());
                self.redis[n].log.push(format!("REPLICAOF {to}"));
                if self.redis[n].master != Some(to) {
                    self.redis[n].master = Some(to);
                    self.redis[n].link_up = false;
                    self.redis[n].link_down_at = None;
                }
                ok()
            }
            ("CLIENT", "PAUSE") if self.redis[n].denies_pause => {
                Reply::Error("NOPERM this user has no permissions to run the 'client|pause' command".into())
            }
            ("CLIENT", "PAUSE") => {
                self.redis[n].log.push("PAUSE".into());
                self.redis[n].paused_until = Some(self.now + ms(words[2].parse().unwrap()));
                ok()
            }
            ("CLIENT", "UNPAUSE") => {
                self.redis[n].log.push("UNPAUSE".into());
                self.redis[n].paused_until = None;
                ok()
            }
            _ => ok(),
        }
    }

    fn info_text(&self, n: usize) -> String {
        let redis = &self.redis[n];
        let mut text = format!("run_id:{}\r\nloading:{}\r\n", id(7, n, redis.incarnation), u8::from(redis.loading));
        match redis.master {
            None => {
                text += &format!("role:master\r\nmaster_repl_offset:{}\r\n", redis.offset);
                let replicas =
                    (0..3).filter(|other| self.redis[*other].master == Some(redis_at(n)) && self.redis[*other].link_up);
                for (place, other) in replicas.enumerate() {
                    text +=
                        &format!("slave{place}:ip={},port=6379,state=online,offset=1,lag=0\r\n", redis_at(other).ip());
                }
            }
            Some(master) => {
                let (host, port) = (master.ip(), master.port());
                text += &format!(
                    "role:slave\r\nmaster_host:{host}\r\nmaster_port:{port}\r\nslave_repl_offset:{}\r\n",
                    redis.offset
                );
                if redis.link_up {
                    text += "master_link_status:up\r\n";
                } else {
                    let since = redis
                        .link_down_at
                        .map_or_else(|| "-1".to_owned(), |at| self.now.since(at).as_secs().to_string());
                    text += &format!("master_link_status:down\r\nmaster_link_down_since_seconds:{since}\r\n");
                }
                text += &format!("slave_priority:{}\r\n", redis.priority);
            }
        }
        text += &format!("master_replid:{}\r\n", redis.lineage);
        if let Some(earlier) = redis.earlier {
            text += &format!("master_replid2:{earlier}\r\n");
        }
        text += "# Keyspace\r\n";
        if redis.keys {
            text += "db0:keys=3,expires=0,avg_ttl=0\r\n";
        }
        text
    }
}
