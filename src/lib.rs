//! vigie (French: the lookout) makes Redis and Valkey highly available without touching their clients.
//!
//! One binary does the jobs of keepalived (virtual IP), HAProxy (the way to the master), redis-sentinel (who is master) and
//! an init script (a redis-server that never outlives its supervisor), by the role of the host it runs on.
//!
//! # The map
//!
//! Dependencies point one way: each floor may use what stands below it. `tests/layers.rs` holds it.
//!
//! | floor | room | what happens there |
//! |---|---|---|
//! | entry | `main`, [`args`] | the command line |
//! | people | [`operate`] | [status](operate::status), the [screen](operate::console) of a box, [why](operate::why), [check](operate::check), orders to a running node, [redis-sentinel's place](operate::sentinel), and, with the feature `demo`, the [demo](operate::demo) and its [lab](operate::lab) of hosts in namespaces |
//! | machine room | [`runtime`] | sockets, netlink, processes, disks, clocks, and the [rights](runtime::rights) that a process keeps: [`guard`](runtime::guard) and [`worker`](runtime::worker), one driver per core; the hardware [`watchdog`](runtime::watchdog) of a box; [exit codes](runtime::exit) |
//! | papers | [`config`] | the cluster file and the kernel command line, validated whole, and what a box is by both ([`boot`](config::boot)); [`sentinel.conf`](config::sentinel), kept line by line |
//! | deciders | [`cores`] | deterministic machines: [`vrrp`](cores::vrrp), [`sentinel`](cores::sentinel), [`proxy`](cores::proxy), [`redis`](cores::redis), [`cluster`](cores::cluster) |
//! | bytes | [`wire`] | codecs: [VRRP](wire::vrrp), [ARP](wire::arp), [RESP](wire::resp) behind a [bounded scanner](wire::scan), [INFO](wire::info), [hello](wire::hello), the kernel's [list of connections](wire::inet_diag), the [frame](wire::frame) of the peer link |
//! | ground | [`base`] | [time without a clock](base::Instant), names, what a [node](base::node) says of itself and what it [comes to](base::census), the [secrets](base::secret) of a cluster, seeded randomness, the [one shape of a core](base::Machine) |
//!
//! A core never opens a socket, reads a clock or starts a process: inputs and a time go in, outputs and a deadline come
//! out. [`runtime::drive`] is the one loop around all of them. So every decision can be replayed, and tested in virtual
//! time.
//!
//! # Two processes, some threads
//!
//! `vigie run` is a small [`guard`](runtime::guard) that starts the [`worker`](runtime::worker) and cleans up behind it. In
//! the worker, one thread runs the control plane (sentinel, supervisor, routes, control socket), a few threads carry the bytes of
//! clients, and one that never ends starts redis-server, whose life the kernel ties to it. Three jobs have [real-time](runtime::realtime)
//! threads, since others rely on them whatever happens on this node: VRRP, the peer link, and the fence. Those wait for no disk,
//! no log and no other thread; what they have to tell is written by clerks. The guard is real-time, too, and locked in memory: it has
//! to act where its worker cannot.
//!
//! The master of a fenced cluster takes writes only by a [lease](cores::cluster::lease) from the sentinels. The
//! [fence](runtime::fence) makes redis refuse them before the lease ends: it has a real-time thread in the worker, above the link
//! that renews the lease, and a second one in the guard, which kills a redis that is still open past that end. What is open until
//! when stands on a page that both processes share.
//!
//! The roles meet in one place: each posts [what it knows of itself](cores::cluster::Part) to the peer link, and reads what
//! it must know of others, near or far, from the link's [`View`](cores::cluster::View).
//!
//! `vigie sentinel` is one process with one thread: [`operate::sentinel`] makes it the process that redis-sentinel would be,
//! [`runtime::sentinel::alone`] runs the same core as in a cluster, with its masters from `sentinel.conf` and from commands, and
//! whoever greets as the other sentinels. Nothing it promised is only in memory: [`runtime::sentinel::file`] rewrites the file
//! before anybody hears of a vote or a new master.
//!
//! # Where a VRRP packet travels
//!
//! The raw socket in [`runtime::vip`] → [`wire::vrrp`] makes an advertisement of it, or a reason why not →
//! [`cores::vrrp`]'s router, which answers with outputs: advertise, hold or release the addresses, announce them →
//! [`runtime::vip`] again, which sends, and makes the kernel agree through [`runtime::netlink`]; gratuitous ARP is made by
//! [`wire::arp`], by which others' claims on the addresses are read too. The state of the router is posted to the peer link, for
//! `vigie status` anywhere, and for the other routers: an advert in a proxy's name is held against that proxy's own word.
//!
//! # Where a `SET` command travels
//!
//! The client's connection to the virtual IP is accepted by [`runtime::proxy`] on the node that holds the address, and
//! handed to one of its threads. [`cores::proxy`] has decided beforehand where writes go: the master of the latest
//! decision, and only after a connection to it proved the role. The bytes go to that redis-server and its replies come
//! back, without being looked at. When the decision changes, every session of the old master is cut in the same event.
//!
//! # Where a dead master travels
//!
//! The kernel tells the supervisor ([`runtime::redis`], through a pidfd) → [`cores::redis`] posts *dead* → the peer link
//! ([`runtime::peers`]) sends one [frame](wire::frame) to every node → on each node with a sentinel, [`cores::sentinel`]
//! takes the supervisor's word as proof: down at once, no waiting → peers asked, votes given (each on
//! [disk](runtime::store) before it is said), a leader elected → the best replica promoted → the new decision stored, posted
//! to the link and published as `+switch-master` → on each proxy, [`cores::proxy`] proves the new master and
//! [`runtime::proxy`] sends clients there → on the other nodes, supervisors point their redis at the new master, the
//! restarted old one included: it started closed, as a replica of nobody.
//!
//! A host that goes dark says nothing: then [`cores::sentinel`] waits for `down_after` of silence, and goes on as above.

// What tests inside and outside of the crate share names it from outside.
#[cfg(test)]
extern crate self as vigie;

pub mod args;
pub mod base;
pub mod config;
pub mod cores;
pub mod operate;
pub mod runtime;
pub mod wire;
