//! Commands that change something, or make the agreement promise something: their words, made into orders. What a change does
//! is not decided here.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;

use crate::base::{Epoch, NodeName, Place, RunId, Secret};
use crate::cores::sentinel::effect::Script;
use crate::cores::sentinel::order::Order;
use crate::cores::sentinel::pending::Change;
use crate::cores::sentinel::view::{MasterView, View};
use crate::cores::sentinel::{Answer, Settings, Simulated};
use crate::wire::hello;
use crate::wire::resp::Reply;

use super::access::Access;
use super::glob;
use super::reply::{arity, error, integer, simple, syntax, text};
use super::step::Step;

/// Longest value of an option, bytes.
const VALUE_MAX: usize = 1_024;

fn word(word: &[u8]) -> String {
    String::from_utf8_lossy(&word[..word.len().min(VALUE_MAX)]).into_owned()
}

fn lower(bytes: &[u8]) -> String {
    word(bytes).to_ascii_lowercase()
}

fn positive(value: &str) -> Option<u64> {
    value.parse().ok().filter(|value| (1..=i64::MAX.unsigned_abs()).contains(value))
}

fn millis(value: &str) -> Option<Duration> {
    positive(value).map(Duration::from_millis)
}

fn yes_no(value: &str) -> Option<bool> {
    match value.to_ascii_lowercase().as_str() {
        "yes" => Some(true),
        "no" => Some(false),
        _ => None,
    }
}

/// What can stand in a line of a configuration file.
fn is_line_text(value: &str) -> bool {
    !value.contains(['\n', '\r', '\0'])
}

fn refused_by_file(view: View<'_>, what: &str) -> Result<(), Answer> {
    match view.is_of_cluster() {
        true => {
            let text = "is not possible: what is watched, and how, is in the cluster file";
            Err(error(format!("ERR SENTINEL {what} {text}")))
        }
        false => Ok(()),
    }
}

/// The master of that name.
pub(super) fn find<'a>(view: View<'a>, name: &[u8]) -> Result<MasterView<'a>, Answer> {
    view.master(name).ok_or_else(|| error("ERR No such master with that name"))
}

/// `SENTINEL MONITOR name ip port quorum`.
pub(super) fn monitor(view: View<'_>, args: &[Bytes]) -> Result<Step, Answer> {
    refused_by_file(view, "MONITOR")?;
    let [name, host, port, quorum] = args else { return Err(arity("sentinel|monitor")) };
    let quorum: i64 = word(quorum).parse().map_err(|_| error("ERR Invalid quorum"))?;
    let quorum = u32::try_from(quorum).ok().filter(|quorum| *quorum > 0);
    let port: i64 = word(port).parse().map_err(|_| error("ERR Invalid port"))?;
    let quorum = quorum.ok_or_else(|| error("ERR Quorum must be 1 or greater."))?;
    let port = u16::try_from(port).ok().filter(|port| *port > 0);
    let port = port.ok_or_else(|| error("ERR Invalid port number."))?;
    Ok(Step::awaited(Order::Monitor { name: word(name), host: word(host), port, quorum }))
}

/// `SENTINEL REMOVE name`.
pub(super) fn remove(view: View<'_>, name: &[u8]) -> Result<Step, Answer> {
    refused_by_file(view, "REMOVE")?;
    let master = find(view, name)?;
    Ok(Step::awaited(Order::Change(Change::Remove(master.id()), Vec::new())))
}

/// `SENTINEL SET name option value …`.
pub(super) fn set(view: View<'_>, name: &[u8], words: &[Bytes]) -> Result<Step, Answer> {
    refused_by_file(view, "SET")?;
    let master = find(view, name)?;
    options(view.settings(), master, words).map(Step::awaited).map_err(error)
}

fn options(settings: &Settings, master: MasterView<'_>, options: &[Bytes]) -> Result<Order, String> {
    let mut config = Box::new(master.config().clone());
    let (mut said, mut scripts, mut rest) = (Vec::new(), Vec::new(), options);
    while let [option, after @ ..] = rest {
        let name = lower(option);
        let shown = word(option);
        let unknown = || format!("ERR Unknown option or number of arguments for SENTINEL SET '{shown}'");
        let [value, after @ ..] = after else { return Err(unknown()) };
        let value = word(value);
        let wrong = || format!("ERR Invalid argument '{value}' for SENTINEL SET '{shown}'");
        let given = || if is_line_text(&value) { Ok((!value.is_empty()).then(|| value.clone())) } else { Err(wrong()) };
        let mut telling = format!("{shown} {value}");
        rest = after;
        match name.as_str() {
            "down-after-milliseconds" => config.down_after = millis(&value).ok_or_else(wrong)?,
            "failover-timeout" => config.failover_timeout = millis(&value).ok_or_else(wrong)?,
            "parallel-syncs" => {
                config.parallel_syncs = positive(&value).and_then(|n| u32::try_from(n).ok()).ok_or_else(wrong)?;
            }
            "quorum" => config.quorum = positive(&value).and_then(|n| u32::try_from(n).ok()).ok_or_else(wrong)?,
            "master-reboot-down-after-period" | "primary-reboot-down-after-period" => {
                let period: u64 = value.parse().map_err(|_| wrong())?;
                config.reboot_down_after = Duration::from_millis(period);
            }
            "auth-pass" => {
                config.auth_pass = given()?.map(Secret::new);
                telling = format!("{shown} ******");
            }
            "auth-user" => config.auth_user = given()?,
            "notification-script" | "client-reconfig-script" => {
                let script = given()?;
                script_allowed(settings)?;
                let (place, whose) = if name == "notification-script" {
                    (&mut config.notification_script, Script::Notification)
                } else {
                    (&mut config.client_reconfig_script, Script::ClientReconfig)
                };
                scripts.extend(script.clone().map(|path| (whose, path)));
                *place = script;
            }
            "rename-command" => {
                let [new, after @ ..] = rest else { return Err(unknown()) };
                let new = word(new);
                rest = after;
                if value.is_empty() || new.is_empty() || !is_line_text(&value) || !is_line_text(&new) {
                    return Err(format!("ERR Invalid argument '{value}' for SENTINEL SET '{shown}'"));
                }
                telling = format!("{shown} {value} {new}");
                config.renames.retain(|(old, _)| !old.eq_ignore_ascii_case(&value));
                if !value.eq_ignore_ascii_case(&new) {
                    config.renames.push((value.clone(), new));
                }
            }
            _ => return Err(unknown()),
        }
        said.push(telling);
    }
    Ok(Order::Change(Change::Set { master: master.id(), config, said }, scripts))
}

fn script_allowed(settings: &Settings) -> Result<(), String> {
    if settings.deny_scripts_reconfig {
        return Err("ERR Reconfiguration of scripts path is denied for security reasons. Check the \
                    deny-scripts-reconfig configuration directive in your Sentinel configuration"
            .to_owned());
    }
    Ok(())
}

/// `SENTINEL CONFIG GET|SET …`.
pub(super) fn config(view: View<'_>, verb: &[u8], words: &[Bytes]) -> Result<Step, Answer> {
    if verb.eq_ignore_ascii_case(b"get") && !words.is_empty() {
        return Ok(config_get(view, words).into());
    }
    if !verb.eq_ignore_ascii_case(b"set") || words.is_empty() || !words.len().is_multiple_of(2) {
        return Err(error("ERR Only SENTINEL CONFIG GET <option> / SET <option> <value> are supported."));
    }
    refused_by_file(view, "CONFIG SET")?;
    let settings = settings_with(view, words).map_err(error)?;
    Ok(Step::awaited(Order::Change(Change::Settings(Box::new(settings)), Vec::new())))
}

fn config_get(view: View<'_>, patterns: &[Bytes]) -> Answer {
    let yes_no = |yes: bool| if yes { "yes" } else { "no" }.to_owned();
    let settings = view.settings();
    let pass = settings.sentinel_pass.as_ref().map_or("", |pass| pass.reveal()).to_owned();
    let all = [
        ("resolve-hostnames", yes_no(settings.resolve_hostnames)),
        ("announce-hostnames", yes_no(settings.announce_hostnames)),
        ("announce-ip", settings.announce_ip.clone().unwrap_or_default()),
        ("announce-port", settings.announce_port.unwrap_or(0).to_string()),
        ("sentinel-user", settings.sentinel_user.clone().unwrap_or_default()),
        // The password of a cluster file is nobody's business.
        ("sentinel-pass", if view.is_of_cluster() { String::new() } else { pass }),
        ("loglevel", settings.log_level.clone().unwrap_or_else(|| "notice".to_owned())),
    ];
    let wanted =
        |name: &str| patterns.iter().any(|pattern| glob::matches(&pattern.to_ascii_lowercase(), name.as_bytes()));
    let found = all.into_iter().filter(|(name, _)| wanted(name));
    Answer::Reply(Reply::map(found.map(|(name, value)| (name, Reply::Bulk(value.into())))))
}

fn settings_with(view: View<'_>, pairs: &[Bytes]) -> Result<Settings, String> {
    let mut settings = view.settings().clone();
    for pair in pairs.chunks_exact(2) {
        let (name, value) = (lower(&pair[0]), word(&pair[1]));
        let wrong = || format!("ERR Invalid value '{value}' to SENTINEL CONFIG SET '{}'", word(&pair[0]));
        let text = || if is_line_text(&value) { Ok((!value.is_empty()).then(|| value.clone())) } else { Err(wrong()) };
        match name.as_str() {
            "resolve-hostnames" => settings.resolve_hostnames = yes_no(&value).ok_or_else(wrong)?,
            "announce-hostnames" => settings.announce_hostnames = yes_no(&value).ok_or_else(wrong)?,
            "announce-ip" => settings.announce_ip = text()?,
            "announce-port" => {
                let port: u16 = value.parse().map_err(|_| wrong())?;
                settings.announce_port = (port > 0).then_some(port);
            }
            "sentinel-user" => settings.sentinel_user = text()?,
            "sentinel-pass" => settings.sentinel_pass = text()?.map(Secret::new),
            "loglevel" => {
                let known = ["debug", "verbose", "notice", "warning", "nothing"];
                let level = value.to_ascii_lowercase();
                settings.log_level = Some(level.clone()).filter(|_| known.contains(&level.as_str()));
                settings.log_level.as_ref().ok_or_else(wrong)?;
            }
            _ => return Err(format!("ERR Invalid argument '{}' to SENTINEL CONFIG SET", word(&pair[0]))),
        }
    }
    Ok(settings)
}

/// `SENTINEL FLUSHCONFIG`.
pub(super) fn flush() -> Step {
    Step::awaited(Order::Change(Change::Nothing, Vec::new()))
}

/// `SENTINEL DEBUG [timer milliseconds …]`: until the process ends.
pub(super) fn debug(view: View<'_>, args: &[Bytes]) -> Result<Step, Answer> {
    let mut timers = view.timers().clone();
    if args.is_empty() {
        let fields = timers.named().into_iter();
        let fields = fields.map(|(name, value)| (name, Reply::Bulk(value.as_millis().to_string().into())));
        return Ok(Answer::Reply(Reply::map(fields)).into());
    }
    for pair in args.chunks(2) {
        let name = word(&pair[0]);
        let unknown = || error(format!("ERR Unknown option or number of arguments for SENTINEL DEBUG '{name}'"));
        let value = pair.get(1).map(|value| word(value)).ok_or_else(unknown)?;
        let wrong = || error(format!("ERR Invalid argument '{value}' for SENTINEL DEBUG '{name}'"));
        let time = millis(&value).ok_or_else(wrong)?;
        if !timers.set(&name, time) {
            return Err(unknown());
        }
    }
    Ok(Step::ok(Order::Timers(Box::new(timers))))
}

/// `SENTINEL SIMULATE-FAILURE flag …`: the process ends at that point of a failover it leads.
pub(super) fn simulate(args: &[Bytes]) -> Step {
    // What was asked for before is over, whatever is asked for now.
    let mut simulated = Simulated::default();
    let mut answer = simple("OK");
    for flag in args {
        match lower(flag).as_str() {
            "crash-after-election" => simulated.after_election = true,
            "crash-after-promotion" => simulated.after_promotion = true,
            "help" => {
                let names = ["crash-after-election", "crash-after-promotion"];
                let names = names.map(|name| Reply::Bulk(Bytes::from_static(name.as_bytes())));
                answer = Answer::Reply(Reply::Array(names.to_vec()));
                break;
            }
            _ => {
                answer = error("ERR Unknown failure simulation specified");
                break;
            }
        }
    }
    Step::order(Order::SimulateFailure(simulated), answer)
}

/// `SENTINEL RESET pattern`: forgets the replicas and the other sentinels of each such master.
pub(super) fn reset(view: View<'_>, pattern: &[u8]) -> Step {
    let matching = view.masters().filter(|master| glob::matches(pattern, master.name().as_bytes()));
    let masters: Vec<_> = matching.map(MasterView::id).collect();
    let answer = Answer::Reply(integer(masters.len()));
    Step::order(Order::Reset(masters), answer)
}

/// `SENTINEL FAILOVER name [COORDINATED]`: whether it has begun is answered at once.
pub(super) fn failover(master: MasterView<'_>, options: &[Bytes]) -> Result<Step, Answer> {
    let coordinated = match options {
        [] => false,
        [option] if option.eq_ignore_ascii_case(b"coordinated") => true,
        [_] => return Err(error("ERR Unknown failover option specified")),
        _ => return Err(arity("sentinel|failover")),
    };
    Ok(Step::ok(Order::Failover { master: master.id(), coordinated }))
}

/// `SENTINEL SWITCHOVER name [node]`, from a node without a sentinel of its own: answered when it is done. The error in words,
/// if there can be no such node.
pub(super) fn switchover(master: MasterView<'_>, to: Option<&[u8]>) -> Result<Step, String> {
    let to = to.map(|name| String::from_utf8_lossy(name).parse::<NodeName>().map_err(|error| error.to_string()));
    Ok(Step::awaited(Order::Switchover { master: master.id(), to: to.transpose()? }))
}

/// `SENTINEL IS-MASTER-DOWN-BY-ADDR ip port epoch runid|*`.
pub(super) fn is_master_down(view: View<'_>, args: [&Bytes; 4]) -> Result<Step, Answer> {
    let [ip, port, epoch, candidate] = args;
    let place = text(port).parse().ok().and_then(|port| Place::new(text(ip), port));
    let place = place.ok_or_else(|| error("ERR Invalid IP address or port specified"))?;
    let epoch: Epoch = text(epoch).parse().map_err(|_| error("ERR value is not an integer or out of range"))?;
    let candidate = (candidate.as_ref() != b"*").then(|| text(candidate).parse::<RunId>());
    let candidate = candidate.transpose().map_err(|why| error(format!("ERR {why}")))?;
    // A name that is not known is no master of this sentinel.
    let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
    let about = view.address_of(&place).unwrap_or(nowhere);
    Ok(Step::awaited(Order::IsMasterDown { about, epoch, candidate }))
}

/// `PUBLISH`: the greeting of another sentinel. In a cluster only the listed stock sentinels greet, at this port and logged in.
pub(super) fn publish(args: &[Bytes]) -> Result<Step, Answer> {
    let [channel, payload] = args else { return Err(arity("publish")) };
    if channel.as_ref() != hello::CHANNEL.as_bytes() {
        return Err(error("ERR Only HELLO messages are accepted by Sentinel instances."));
    }
    Ok(Step::order(Order::Greeting(payload.clone()), Answer::Reply(Reply::Integer(1))))
}

/// `SHUTDOWN`: only of a sentinel that nobody supervises.
pub(super) fn shutdown(access: &Access, args: &[Bytes]) -> Result<Step, Answer> {
    let options: Vec<String> = args.iter().map(|word| lower(word)).collect();
    let has = |name: &str| options.iter().any(|option| option == name);
    let known = options.iter().all(|option| ["nosave", "save", "now", "force", "abort"].contains(&option.as_str()));
    if !known || has("nosave") && has("save") || has("abort") && options.len() > 1 {
        return Err(syntax());
    }
    match access {
        Access::Cluster(_) => Err(error("ERR SHUTDOWN is not supported: vigie itself starts and stops its sentinel")),
        Access::Acl(_) if has("abort") => Err(error("ERR No shutdown in progress.")),
        Access::Acl(_) => Ok(Step::awaited(Order::Stop)),
    }
}
