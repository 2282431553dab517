//! One virtual router on a segment: `cores::vrrp`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use vigie::cores::vrrp::{Config, Hold, Input, Output, Router, Word};
use vigie::wire::vrrp::{Advert, Auth, ChecksumForm, Received};

use crate::form::World;
use crate::stage::{Stage, Surroundings};
use crate::words::{Words, unexpected};

const VIRTUAL_ROUTER_ID: u8 = 51;
const VIP: &str = "192.168.0.1";
const OWN: &str = "192.168.0.2";
const PROXIES: &str = "192.168.0.3,192.168.0.4";

/// A router, its kernel and its segment.
pub(crate) struct Segment(Stage<Kernel>, BTreeMap<IpAddr, Word>);

/// Answers each wish for the addresses: done, refused, or nothing.
struct Kernel(Option<Result<(), String>>);

impl Surroundings for Kernel {
    type Core = Router;

    fn render(&self, output: &Output) -> Option<String> {
        Some(match output {
            Output::Advertise(advert, checksum) => {
                let version = advert.interval().version();
                let plain = version == 3 && *checksum == ChecksumForm::Plain;
                let form = if plain { ", plain checksum" } else { "" };
                format!("advert: version {version}, priority {}, every {}{form}", advert.priority(), advert.interval())
            }
            Output::Hold(Hold::Held) => "addresses: hold".to_owned(),
            Output::Hold(Hold::Released) => "addresses: release".to_owned(),
            Output::Announce => "addresses: announce".to_owned(),
            Output::Publish(event) => format!("event: {event}"),
        })
    }

    fn answer(&mut self, output: Output) -> Option<Input> {
        match output {
            Output::Hold(Hold::Held) => self.0.clone().map(Input::Vip),
            Output::Hold(Hold::Released) | Output::Advertise(..) | Output::Announce | Output::Publish(_) => None,
        }
    }
}

impl World for Segment {
    /// `router priority 100 interval 10cs [nopreempt] [file A] [proxies A,B] [peers A,B] [as backup|master]`: as it is
    /// before interface and proxy have been heard of, or as it has just become backup or master.
    fn open(words: &mut Words) -> Result<Self, String> {
        words.keyword("router")?;
        words.keyword("priority")?;
        let config = Config {
            virtual_router_id: VIRTUAL_ROUTER_ID,
            priority: words.value("a priority")?,
            interval: words.interval()?,
            preempt: !words.optional("nopreempt"),
            addresses: vec![VIP.parse().expect("an address")],
            own_address: words.value_or("file", OWN.parse().expect("an address"))?,
            proxies: addresses(&words.value_or("proxies", PROXIES.to_owned())?)?,
            peers: words
                .optional("peers")
                .then(|| words.next("addresses"))
                .map_or(Ok(vec![]), |list| addresses(&list?))?,
        };
        let router = Router::new(config).map_err(|error| error.to_string())?;
        let mut stage = Stage::new(router, Kernel(Some(Ok(()))));
        if words.optional("as") {
            stage.give(Input::Usable(Ok(())));
            stage.give(Input::Link(Ok(OWN.parse().expect("an address"))));
            match words.next("a state")?.as_str() {
                "backup" => {}
                "master" => stage.wait(),
                other => return Err(unexpected(other, "backup or master")),
            }
            stage.begin();
        }
        Ok(Self(stage, BTreeMap::new()))
    }

    fn command(&mut self, words: &mut Words) -> Result<Vec<String>, String> {
        let stage = &mut self.0;
        match words.next("a command")?.as_str() {
            "advance" => Ok(stage.pass(words.duration()?)),
            "link" => {
                let up = words.outcome("up", "down")?;
                let link = match up {
                    Ok(()) => Ok(words.value("the primary address")?),
                    Err(why) => Err(why),
                };
                Ok(stage.give(Input::Link(link)))
            }
            "usable" => Ok(stage.give(Input::Usable(words.outcome("yes", "no")?))),
            "kernel" => {
                stage.around.0 =
                    if words.optional("silent") { None } else { Some(words.outcome("accepts", "refuses")?) };
                Ok(Vec::new())
            }
            "advert" => Ok(stage.give(Input::Advert(received(words)?))),
            "proxy" => {
                let proxy = words.value("the address of a proxy")?;
                let word = match words.next("its word over the link")?.as_str() {
                    "silent" => Word::Silent,
                    "idle" => Word::Idle,
                    "holds" => Word::Holds,
                    other => return Err(unexpected(other, "silent, idle or holds")),
                };
                self.1.insert(proxy, word);
                Ok(stage.give(Input::Proxies(self.1.iter().map(|(proxy, word)| (*proxy, *word)).collect())))
            }
            "claim" => {
                let last = words.value("the last byte of an Ethernet address")?;
                let address = VIP.parse().expect("an address");
                Ok(stage.give(Input::Claim { address, mac: [2, 0, 0, 0, 0, last] }))
            }
            "adverts" => {
                words.keyword("each")?;
                let pause = words.duration()?;
                words.keyword("for")?;
                let mut rest = words.duration()?;
                let received = received(words)?;
                let mut lines = Vec::new();
                while rest >= pause {
                    lines.extend(stage.pass(pause));
                    lines.extend(stage.give(Input::Advert(received.clone())));
                    rest -= pause;
                }
                Ok(lines)
            }
            "state" => Ok(vec![format!("{:?}, next deadline {}", stage.core.vip_state(), stage.deadline())]),
            "stop" => Ok(stage.give(Input::Stop)),
            other => {
                Err(unexpected(other, "advance, advert, adverts, claim, kernel, link, proxy, state, stop or usable"))
            }
        }
    }
}

fn addresses(list: &str) -> Result<Vec<IpAddr>, String> {
    list.split(',').map(str::parse).collect::<Result<_, _>>().map_err(|error| format!("addresses: {error}"))
}

/// `advert from IP priority N interval 10cs [ttl N] [router N] [addresses A,B] [password] [plain]`
fn received(words: &mut Words) -> Result<Received, String> {
    words.keyword("from")?;
    let from: IpAddr = words.value("the sender's address")?;
    words.keyword("priority")?;
    let priority = words.value("a priority")?;
    let interval = words.interval()?;
    let hop_limit = words.value_or("ttl", 255)?;
    let router = words.value_or("router", VIRTUAL_ROUTER_ID)?;
    let addresses = addresses(&words.value_or("addresses", VIP.to_owned())?)?;
    let auth = if words.optional("password") { Auth::Simple(*b"wordpass") } else { Auth::None };
    let checksum = if words.optional("plain") { ChecksumForm::Plain } else { ChecksumForm::PseudoHeader };
    let advert = Advert::new(router, priority, interval, addresses).and_then(|advert| advert.with_auth(auth));
    Ok(Received { from, hop_limit, checksum, advert: advert.map_err(|error| error.to_string())? })
}
