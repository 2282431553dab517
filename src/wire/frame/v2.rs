//! Version 2: how a frame lies on the wire, and nothing else may change it.
//!
//! Behind the frame may stand one byte, the highest version that its sender reads. The first builds of this version neither send
//! it nor look at what stands there.

use std::net::SocketAddr;
use std::time::Duration;

use heapless::{String, Vec};
use serde::{Deserialize, Serialize};

use crate::base::node::{self, REASON_MAX};
use crate::base::{NameError, RunId};

use super::content::{self, Unreadable};

pub(super) const VERSION: u8 = 2;

#[derive(Serialize, Deserialize)]
pub(super) struct Frame {
    cluster: String<32>,
    boot: u64,
    sequence: u64,
    nonce: u64,
    echo: u64,
    stamp: u64,
    heard: u64,
    state: State,
}

#[derive(Serialize, Deserialize)]
struct State {
    name: String<32>,
    version: String<16>,
    roles: Roles,
    health: Health,
    redis: Option<Redis>,
    sentinel: Option<Sentinel>,
    proxy: Option<Proxy>,
    vips: Vec<Vip, 4>,
}

#[derive(Serialize, Deserialize)]
struct Roles {
    proxy: bool,
    redis: bool,
    sentinel: bool,
}

#[derive(Serialize, Deserialize)]
enum Health {
    Good,
    Bad(String<REASON_MAX>),
}

#[derive(Serialize, Deserialize)]
struct Redis {
    address: SocketAddr,
    incarnation: u64,
    process: Process,
    role: Role,
    run_id: Option<[u8; 20]>,
    replication_id: Option<[u8; 20]>,
    offset: u64,
    priority: u32,
    has_data: bool,
    history: Option<History>,
}

#[derive(Serialize, Deserialize)]
struct History {
    epoch: u64,
    in_sync: bool,
    offset: u64,
}

#[derive(Serialize, Deserialize)]
enum Process {
    Starting,
    Loading,
    Alive,
    Busy,
    Dead,
}

#[derive(Serialize, Deserialize)]
enum Role {
    Unknown,
    Closed,
    Replica { of: SocketAddr, link_up: bool },
    Master { replicas: u8 },
}

#[derive(Serialize, Deserialize)]
struct Sentinel {
    id: [u8; 20],
    current_epoch: u64,
    masters: Vec<Master, 4>,
}

#[derive(Serialize, Deserialize)]
struct Master {
    name: String<32>,
    decision: Option<Decision>,
    sees_down: bool,
    leads: Option<u64>,
    vote: Option<([u8; 20], u64)>,
}

#[derive(Serialize, Deserialize)]
struct Decision {
    master: SocketAddr,
    epoch: u64,
}

#[derive(Serialize, Deserialize)]
struct Proxy {
    listening: bool,
    route: Option<Decision>,
    clients: u32,
}

#[derive(Serialize, Deserialize)]
struct Vip {
    virtual_router_id: u8,
    state: VipState,
    priority: u8,
}

#[derive(Serialize, Deserialize)]
enum VipState {
    Initialize,
    Backup,
    Master,
}

/// Who reads no more than the version before this one knows of no leases.
const LEASES_SINCE: u8 = 4;

/// Writes a frame, and behind it what its sender reads, unless that is this version.
pub(super) fn encode<'a>(frame: &content::Frame, to: &'a mut [u8]) -> Option<&'a [u8]> {
    let length = postcard::to_slice(&Frame::from(frame.clone()), to).ok()?.len();
    if frame.reads <= VERSION {
        return to.get(..length);
    }
    *to.get_mut(length)? = frame.reads;
    to.get(..=length)
}

pub(super) fn decode(body: &[u8]) -> Result<content::Frame, Unreadable> {
    let (frame, behind) = postcard::take_from_bytes::<Frame>(body).map_err(Unreadable::Layout)?;
    frame.of_sender(behind.first().map_or(VERSION, |reads| VERSION.max(*reads)))
}

impl From<content::Frame> for Frame {
    fn from(frame: content::Frame) -> Self {
        // Every field by name: what a frame has and this version has not is left out on purpose.
        let content::Frame { cluster, boot, sequence, nonce, echo, stamp, heard, grant: _, left: _, reads: _, state } =
            frame;
        Self { cluster, boot, sequence, nonce, echo, stamp, heard, state: state.into() }
    }
}

impl Frame {
    /// What it means, said by a sender that reads up to that version.
    pub(super) fn of_sender(self, reads: u8) -> Result<content::Frame, Unreadable> {
        let Self { cluster, boot, sequence, nonce, echo, stamp, heard, state } = self;
        let mut state: node::NodeState = state.try_into().map_err(Unreadable::Name)?;
        if reads < LEASES_SINCE {
            let masters = state.sentinel.iter_mut().flat_map(|sentinel| &mut sentinel.masters);
            masters.for_each(|master| master.mode = Some(node::Mode::Unfenced));
        }
        let (grant, left) = (None, Duration::ZERO);
        Ok(content::Frame { cluster, boot, sequence, nonce, echo, stamp, heard, grant, left, reads, state })
    }
}

impl From<node::NodeState> for State {
    fn from(state: node::NodeState) -> Self {
        let node::NodeState {
            name,
            version,
            roles,
            health,
            redis,
            sentinel,
            proxy,
            vips,
            tenure: _,
            terms: _,
            hears_majority: _,
            draining: _,
        } = state;
        Self {
            name: name.into(),
            version,
            roles: roles.into(),
            health: health.into(),
            redis: redis.map(Into::into),
            sentinel: sentinel.map(Into::into),
            proxy: proxy.map(Into::into),
            vips: list(vips),
        }
    }
}

impl TryFrom<State> for node::NodeState {
    type Error = NameError;

    fn try_from(state: State) -> Result<Self, NameError> {
        let State { name, version, roles, health, redis, sentinel, proxy, vips } = state;
        Ok(Self {
            health: health.into(),
            redis: redis.map(Into::into),
            sentinel: sentinel.map(Into::into),
            proxy: proxy.map(Into::into),
            vips: list(vips),
            ..Self::new(name.try_into()?, version, roles.into())
        })
    }
}

/// A list in the words of the other side, which has as much room.
fn list<T: Into<U>, U, const N: usize>(from: Vec<T, N>) -> Vec<U, N> {
    from.into_iter().map(Into::into).collect()
}

/// What lies in this layout as it is meant: the same fields, or the same variants, both ways.
macro_rules! alike {
    (struct $layout:ident = $meant:ident { $($field:ident),* }) => {
        impl From<node::$meant> for $layout {
            fn from(node::$meant { $($field),* }: node::$meant) -> Self {
                Self { $($field: $field.into()),* }
            }
        }

        impl From<$layout> for node::$meant {
            fn from($layout { $($field),* }: $layout) -> Self {
                Self { $($field: $field.into()),* }
            }
        }
    };
    (enum $layout:ident = $meant:ident { $($variant:ident $(($inner:ident))? $({ $($field:ident),* })?),* }) => {
        impl From<node::$meant> for $layout {
            fn from(meant: node::$meant) -> Self {
                match meant {
                    $(node::$meant::$variant $(($inner))? $({ $($field),* })? => Self::$variant $(($inner))? $({ $($field),* })?),*
                }
            }
        }

        impl From<$layout> for node::$meant {
            fn from(layout: $layout) -> Self {
                match layout {
                    $($layout::$variant $(($inner))? $({ $($field),* })? => Self::$variant $(($inner))? $({ $($field),* })?),*
                }
            }
        }
    };
}

alike!(struct Roles = Roles { proxy, redis, sentinel });
alike!(enum Health = Health { Good, Bad(reason) });
alike!(struct History = History { epoch, in_sync, offset });
alike!(enum Process = Process { Starting, Loading, Alive, Busy, Dead });
alike!(enum Role = RedisRole { Unknown, Closed, Replica { of, link_up }, Master { replicas } });
alike!(struct Decision = Decision { master, epoch });
alike!(struct Vip = VipFacts { virtual_router_id, state, priority });
alike!(enum VipState = VipState { Initialize, Backup, Master });

impl From<node::RedisFacts> for Redis {
    fn from(
        node::RedisFacts {
            address,
            incarnation,
            process,
            role,
            run_id,
            replication_id,
            offset,
            priority,
            has_data,
            history,
        }: node::RedisFacts,
    ) -> Self {
        Self {
            address,
            incarnation,
            process: process.into(),
            role: role.into(),
            run_id: run_id.map(|id| id.0),
            replication_id: replication_id.map(|id| id.0),
            offset,
            priority,
            has_data,
            history: history.map(Into::into),
        }
    }
}

impl From<Redis> for node::RedisFacts {
    fn from(
        Redis { address, incarnation, process, role, run_id, replication_id, offset, priority, has_data, history }: Redis,
    ) -> Self {
        Self {
            address,
            incarnation,
            process: process.into(),
            role: role.into(),
            run_id: run_id.map(RunId),
            replication_id: replication_id.map(RunId),
            offset,
            priority,
            has_data,
            history: history.map(Into::into),
        }
    }
}

impl From<node::SentinelFacts> for Sentinel {
    fn from(node::SentinelFacts { id, current_epoch, masters }: node::SentinelFacts) -> Self {
        Self { id: id.0, current_epoch, masters: list(masters) }
    }
}

impl From<Sentinel> for node::SentinelFacts {
    fn from(Sentinel { id, current_epoch, masters }: Sentinel) -> Self {
        Self { id: RunId(id), current_epoch, masters: list(masters) }
    }
}

impl From<node::MasterFacts> for Master {
    fn from(
        node::MasterFacts { name, decision, sees_down, leads, vote, target: _, mode: _ }: node::MasterFacts,
    ) -> Self {
        Self { name, decision: decision.map(Into::into), sees_down, leads, vote: vote.map(|(id, epoch)| (id.0, epoch)) }
    }
}

impl From<Master> for node::MasterFacts {
    fn from(Master { name, decision, sees_down, leads, vote }: Master) -> Self {
        Self {
            name,
            decision: decision.map(Into::into),
            sees_down,
            leads,
            vote: vote.map(|(id, epoch)| (RunId(id), epoch)),
            target: None,
            mode: None,
        }
    }
}

impl From<node::ProxyFacts> for Proxy {
    fn from(node::ProxyFacts { listening, route, clients, held: _ }: node::ProxyFacts) -> Self {
        Self { listening, route: route.map(Into::into), clients }
    }
}

impl From<Proxy> for node::ProxyFacts {
    fn from(Proxy { listening, route, clients }: Proxy) -> Self {
        Self { listening, route: route.map(Into::into), clients, held: None }
    }
}
