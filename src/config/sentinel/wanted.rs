//! What a file has to say of a state.

use super::directive::{Directive, Part};
use crate::base::Secret;
use crate::cores::sentinel::{DOWN_AFTER, FAILOVER_TIMEOUT, MasterState, Settings, State};

/// A directive, and whether it must be there: a default need not, and is not added.
pub(super) type Want = (Directive, bool);

/// The directives of `state`, in the order in which redis-sentinel appends them.
pub(super) fn wanted(state: &State, dir: &str) -> Vec<Want> {
    let State { id, current_epoch, settings, masters } = state;
    let mut wanted = of_process(settings, dir);
    wanted.extend(id.map(|id| (Directive::MyId(id), true)));
    wanted.extend(of_sentinel(settings));
    for master in masters {
        of_master(master, &mut wanted);
    }
    wanted.push((Directive::CurrentEpoch(*current_epoch), true));
    wanted
}

fn of_process(settings: &Settings, dir: &str) -> Vec<Want> {
    let mut wanted = vec![(Directive::Dir(dir.to_owned()), true)];
    wanted.extend(settings.log_level.clone().map(|level| (Directive::LogLevel(level), true)));
    wanted.push(secret(settings.require_pass.as_ref(), Directive::RequirePass));
    wanted.extend(settings.users.iter().map(|user| (Directive::User(user.clone()), true)));
    wanted
}

fn of_sentinel(settings: &Settings) -> Vec<Want> {
    let Settings { announce_ip, announce_port, sentinel_user, sentinel_pass, .. } = settings;
    let Settings { resolve_hostnames, announce_hostnames, deny_scripts_reconfig, .. } = *settings;
    vec![
        (Directive::DenyScriptsReconfig(deny_scripts_reconfig), !deny_scripts_reconfig),
        (Directive::ResolveHostnames(resolve_hostnames), resolve_hostnames),
        (Directive::AnnounceHostnames(announce_hostnames), announce_hostnames),
        text(announce_ip.as_deref(), Directive::AnnounceIp),
        (Directive::AnnouncePort(announce_port.unwrap_or(0)), announce_port.is_some()),
        text(sentinel_user.as_deref(), Directive::SentinelUser),
        secret(sentinel_pass.as_ref(), Directive::SentinelPass),
    ]
}

fn of_master(state: &MasterState, wanted: &mut Vec<Want>) {
    let master = &state.config;
    let name = &master.name;
    wanted.push((Directive::Monitor { name: name.clone(), place: state.place.clone(), quorum: master.quorum }, true));
    let (down, timeout) = (master.down_after, master.failover_timeout);
    let mut parts = vec![
        (Part::DownAfter(down), down != DOWN_AFTER),
        (Part::FailoverTimeout(timeout), timeout != FAILOVER_TIMEOUT),
        (Part::ParallelSyncs(master.parallel_syncs), master.parallel_syncs != 1),
    ];
    // A script has no word for "none": its line goes.
    parts.extend(master.notification_script.clone().map(|path| (Part::NotificationScript(path), true)));
    parts.extend(master.client_reconfig_script.clone().map(|path| (Part::ClientReconfigScript(path), true)));
    parts.extend(master.auth_pass.clone().map(|password| (Part::AuthPass(password), true)));
    parts.extend(master.auth_user.clone().map(|user| (Part::AuthUser(user), true)));
    let reboot = master.reboot_down_after;
    parts.push((Part::RebootDownAfter(reboot), !reboot.is_zero()));
    parts.push((Part::ConfigEpoch(state.config_epoch), true));
    parts.push((Part::LeaderEpoch(state.leader_epoch), true));
    parts.extend(state.replicas.iter().map(|place| (Part::KnownReplica(place.clone()), true)));
    parts.extend(state.sentinels.iter().map(|known| (Part::KnownSentinel(known.clone()), true)));
    parts.extend(master.renames.iter().map(|(from, to)| (Part::RenameCommand(from.clone(), to.clone()), true)));
    wanted.extend(parts.into_iter().map(|(part, must)| (Directive::Of(name.clone(), part), must)));
}

fn text(value: Option<&str>, directive: fn(String) -> Directive) -> Want {
    (directive(value.unwrap_or_default().to_owned()), value.is_some())
}

fn secret(value: Option<&Secret>, directive: fn(Secret) -> Directive) -> Want {
    (directive(value.cloned().unwrap_or_else(|| Secret::new(""))), value.is_some())
}
