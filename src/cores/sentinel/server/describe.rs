//! `COMMAND` and every `HELP`: what the table says, as Redis says it.

use bytes::Bytes;

use crate::cores::sentinel::Answer;
use crate::wire::resp::Reply;

use super::glob;
use super::reply::{bulk, error, integer, lower, syntax, text};
use super::table::{self, CATEGORIES, Spec, TABLE};

fn all(replies: impl Iterator<Item = Reply>) -> Answer {
    Answer::Reply(Reply::Array(replies.collect()))
}

/// `COMMAND` without a subcommand: everything.
pub(super) fn command_all() -> Answer {
    all(table::commands().map(info))
}

/// The words behind `COMMAND`, of which `name` is the first.
pub(super) fn command_command(name: &str, args: &[Bytes]) -> Answer {
    let found = |word: &Bytes| table::find(word);
    match name {
        "count" => Answer::Reply(integer(table::commands().count())),
        "list" => list(args),
        "info" if args.is_empty() => command_all(),
        "info" => all(args.iter().map(|word| found(word).map_or(Reply::Null, info))),
        "docs" => {
            let chosen: Vec<&Spec> =
                if args.is_empty() { table::commands().collect() } else { args.iter().filter_map(found).collect() };
            Answer::Reply(Reply::map(chosen.into_iter().map(|spec| (spec.name, docs(spec)))))
        }
        "getkeys" | "getkeysandflags" => match table::called(args) {
            Some(_) => error("ERR The command has no key arguments"),
            None => error("ERR Invalid command specified"),
        },
        _ => syntax(),
    }
}

/// What can be called below `container`.
pub(super) fn help(container: &str) -> Answer {
    let name = container.to_ascii_uppercase();
    let mut lines = vec![format!("{name} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:")];
    for spec in TABLE.iter().filter(|spec| spec.container() == Some(container) && spec.alias_of.is_none()) {
        let sub = spec.name.rsplit('|').next().unwrap_or_default().to_ascii_uppercase();
        lines.push(format!("{sub} {}", spec.arguments).trim_end().to_owned());
        lines.push(format!("    {}.", spec.summary));
    }
    all(lines.into_iter().map(Reply::Simple))
}

/// `ACL CAT`.
pub(super) fn categories(args: &[Bytes]) -> Answer {
    match args {
        [] => all(CATEGORIES.iter().map(|name| bulk(*name))),
        [category] => match CATEGORIES.iter().position(|known| *known == lower(category)) {
            Some(bit) => all(TABLE.iter().filter(|spec| spec.is_in(bit)).map(|spec| bulk(spec.name))),
            None => error(format!("ERR Unknown category '{}'", text(category))),
        },
        _ => error("ERR unknown subcommand or wrong number of arguments for 'CAT'. Try ACL HELP."),
    }
}

fn list(args: &[Bytes]) -> Answer {
    let names =
        |wanted: &dyn Fn(&Spec) -> bool| all(TABLE.iter().filter(|spec| wanted(spec)).map(|spec| bulk(spec.name)));
    match args {
        [] => names(&|_| true),
        [filter, kind, value] if lower(filter) == "filterby" => match lower(kind).as_str() {
            "module" => names(&|_| false),
            "aclcat" => match CATEGORIES.iter().position(|known| *known == lower(value)) {
                Some(bit) => names(&|spec| spec.is_in(bit)),
                None => names(&|_| false),
            },
            "pattern" => {
                let pattern = value.to_ascii_lowercase();
                names(&|spec| glob::matches(&pattern, spec.name.as_bytes()))
            }
            _ => syntax(),
        },
        _ => syntax(),
    }
}

fn info(spec: &Spec) -> Reply {
    let words = |names: &mut dyn Iterator<Item = String>| Reply::set(names.map(Reply::Simple).collect());
    Reply::Array(vec![
        bulk(spec.name),
        Reply::Integer(spec.arity),
        words(&mut spec.flags().map(str::to_owned)),
        Reply::Integer(0),
        Reply::Integer(0),
        Reply::Integer(0),
        words(&mut spec.categories().map(|name| format!("@{name}"))),
        Reply::set(spec.tips.iter().map(|tip| bulk(*tip)).collect()),
        Reply::set(vec![]),
        Reply::set(spec.subcommands().map(info).collect()),
    ])
}

fn docs(spec: &Spec) -> Reply {
    let mut pairs = vec![("summary", bulk(spec.summary)), ("since", bulk(spec.since)), ("group", bulk(spec.group))];
    if let Some((since, instead)) = spec.deprecated {
        pairs.push(("doc_flags", Reply::set(vec![Reply::Simple("deprecated".to_owned())])));
        pairs.push(("deprecated_since", bulk(since)));
        pairs.push(("replaced_by", bulk(instead)));
    }
    let subcommands: Vec<_> = spec.subcommands().map(|spec| (spec.name, docs(spec))).collect();
    if !subcommands.is_empty() {
        pairs.push(("subcommands", Reply::map(subcommands)));
    }
    Reply::map(pairs)
}
