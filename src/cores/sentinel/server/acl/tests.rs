//! Users and their rules.

use super::*;

fn acl() -> Acl {
    Acl::from_lines(&[], None).unwrap()
}

fn with(rules: &[&str]) -> Result<User, String> {
    let mut acl = acl();
    let rules: Vec<String> = rules.iter().map(|rule| (*rule).to_owned()).collect();
    acl.set_user("u", &rules)?;
    Ok(acl.users["u"].clone())
}

fn may(user: &User, words: &str) -> bool {
    let args: Vec<String> = words.split(' ').map(str::to_owned).collect();
    let bytes: Vec<bytes::Bytes> = args.iter().map(|word| bytes::Bytes::from(word.clone())).collect();
    let names = if words.contains("subscribe ") { &args[1..] } else { &[] };
    let spec = table::called(&bytes).unwrap();
    user.may(spec, &args, &Channels { names, patterns: words.starts_with('p') }).is_ok()
}

#[test]
fn a_server_without_users_has_one_who_may_do_everything() {
    assert_eq!(acl().lines(), ["default on nopass ~* &* +@all"]);
    assert!(acl().is_open());
    let closed = Acl::from_lines(&[], Some(&Secret::new("hush"))).unwrap();
    assert!(!closed.is_open());
    assert!(closed.authenticates("default", b"hush"));
    assert!(!closed.authenticates("default", b"wrong"));
    assert!(!closed.authenticates("nobody", b"hush"));
}

#[test]
fn a_new_user_may_do_nothing() {
    let user = with(&[]).unwrap();
    assert_eq!(user.describe(), "off resetchannels -@all");
    assert!(!may(&user, "ping"));
    assert!(may(&user, "auth x"), "how else would it become another one");
}

#[test]
fn the_last_rule_that_fits_decides() {
    for (rules, yes, no) in [
        (&["+@all", "-ping"][..], &["role", "acl list"][..], &["ping"][..]),
        (&["+@connection", "-client|kill"], &["ping", "client id", "client list"], &["client kill a", "role"]),
        (&["-client|kill", "+client"], &["client kill a", "client id"], &["ping"]),
        (&["+client|id"], &["client id"], &["client list"]),
        (&["+@all", "-@dangerous", "+sentinel|masters"], &["ping", "sentinel masters"], &["role", "sentinel reset x"]),
        (&["+role|x", "+ping"], &["ping"], &["role"]),
        (&["+@all", "-@all", "+PING"], &["ping"], &["role"]),
    ] {
        let user = with(rules).unwrap();
        yes.iter().for_each(|call| assert!(may(&user, call), "{rules:?} allows {call}"));
        no.iter().for_each(|call| assert!(!may(&user, call), "{rules:?} does not allow {call}"));
    }
}

#[test]
fn the_rules_that_clients_of_sentinels_are_told_to_use_are_taken() {
    let rules = "on >pw allchannels -@all +auth +client|getname +client|id +client|setname +command +hello +ping +role \
                 +sentinel|get-master-addr-by-name +sentinel|master +sentinel|myid +sentinel|replicas \
                 +sentinel|sentinels +sentinel|masters +subscribe";
    let user = with(&rules.split_whitespace().collect::<Vec<_>>()).unwrap();
    for call in ["sentinel masters", "sentinel get-master-addr-by-name x", "client id", "subscribe +switch-master"] {
        assert!(may(&user, call), "{call}");
    }
    assert!(!may(&user, "sentinel failover x"));
}

#[test]
fn channels_are_allowed_by_pattern_and_patterns_literally() {
    let user = with(&["+@all", "&+s*"]).unwrap();
    assert!(may(&user, "subscribe +sdown") && !may(&user, "subscribe +sdown -odown"));
    assert!(may(&user, "psubscribe +s*") && !may(&user, "psubscribe +sd*"));
    let user = with(&["+@all", "&a", "(+subscribe &b)"]).unwrap();
    assert!(may(&user, "subscribe a") && may(&user, "subscribe b"));
    assert!(!may(&user, "subscribe a b"), "one selector has to allow all of it");
}

#[test]
fn what_is_shown_can_be_read_again() {
    let hash = "c3ab8ff13720e8ad9047dd39466b3c8974e592c2fa383d4a3960714caef0c4f2";
    let hashed = format!("#{hash}");
    for rules in [
        &["on", ">pw", &hashed, "~k*", "%R~r*", "%W~w*", "%RW~b", "&c*", "+@all", "-@admin", "+acl|cat"][..],
        &["nopass", "skip-sanitize-payload", "allkeys", "allchannels", "+role|x"],
        &["reset", "(+ping ~x &y)", "(-@all", "+auth)", "+@all", "-sentinel|set"],
    ] {
        let mut acl = acl();
        acl.set_user("u", &rules.iter().map(|rule| (*rule).to_owned()).collect::<Vec<_>>()).unwrap();
        assert_eq!(Acl::from_lines(&acl.lines(), None).as_ref(), Ok(&acl), "{:?}", acl.lines());
        let again = Acl::from_file_text(&acl.to_file_text()).unwrap();
        assert_eq!(again.lines(), acl.lines());
    }
    let shown = with(&["on", "~k*", "%R~r*", "%W~w*", "%RW~b", "&c*", "+@all", "-@admin"]).unwrap().describe();
    assert_eq!(shown, "on ~k* %R~r* %W~w* ~b resetchannels &c* +@all -@admin");
    let shown = with(&["reset", "+role|x", "(+ping ~x &y)", "(-@all", "+auth)"]).unwrap().describe();
    assert_eq!(
        shown,
        "off sanitize-payload resetchannels -@all +role|x (~x resetchannels &y -@all +ping) (resetchannels -@all +auth)"
    );
}

#[test]
fn wrong_rules_have_the_errors_of_redis_and_change_nothing() {
    let mut acl = acl();
    acl.set_user("u", &["on".to_owned()]).unwrap();
    let before = acl.clone();
    for (rules, error) in [
        (&["+ping", "+foo"][..], "'+foo': Unknown command or category name in ACL"),
        (&["+@foo"], "'+@foo': Unknown command or category name in ACL"),
        (&["-role|x"], "'-role|x': Unknown command or category name in ACL"),
        (&["+sentinel|foo"], "'+sentinel|foo': Unknown command or category name in ACL"),
        (&["+client|kill|x"], "'+client|kill|x': Allowing first-arg of a subcommand is not supported"),
        (&["foo"], "'foo': Syntax error"),
        (&["%X~a"], "'%X~a': Syntax error"),
        (&["~a b"], "'~a b': Syntax error"),
        (&["(on)"], "'(on)': Syntax error"),
        (&["<nope"], "'<nope': The password you are trying to remove from the user does not exist"),
        (&["#abc"], "'#abc': The password hash must be exactly 64 characters"),
        (&["allkeys", "~a"], "'~a': Adding a pattern after the * pattern (or the 'allkeys' flag)"),
        (&["allchannels", "&a"], "'&a': Adding a pattern after the * pattern (or the 'allchannels' flag)"),
    ] {
        let rules: Vec<String> = rules.iter().map(|rule| (*rule).to_owned()).collect();
        let said = acl.set_user("u", &rules).unwrap_err();
        assert!(said.starts_with(&format!("ERR Error in ACL SETUSER modifier {error}")), "{said}");
    }
    let open = acl.set_user("u", &["(+ping".to_owned()]).unwrap_err();
    assert_eq!(open, "ERR Unmatched parenthesis in acl selector starting at '(+ping'.");
    assert!(acl.set_user("a b", &[]).unwrap_err().contains("can't contain spaces"));
    assert_eq!(acl, before);
}

#[test]
fn a_file_says_where_it_is_wrong() {
    let error = |text: &str| Acl::from_file_text(text).unwrap_err().to_string();
    assert_eq!(error("# x\n\nuser a on\nuser a off\n"), "line 4: duplicate user 'a' found");
    assert_eq!(error("usr a on\n"), "line 1: should start with the keyword 'user' and a name");
    let said = error("user a on +foo\n");
    assert_eq!(said, "line 1: user 'a': error in the rule '+foo': Unknown command or category name in ACL");
    assert!(error("user a (+ping\n").contains("Syntax error"));
    assert_eq!(Acl::from_file_text("").unwrap().lines(), ["default on nopass ~* &* +@all"]);
}

#[test]
fn new_users_may_hear_all_channels_if_that_is_the_default() {
    let lines = ["u on nopass +@all".to_owned(), "v on resetchannels &a".to_owned()];
    let acl = Acl::empty().with_all_channels(true).with_lines(&lines, None).unwrap();
    assert!(acl.users["u"].may_hear("x", false) && !acl.users["v"].may_hear("x", false));
    // What is written does not depend on the default.
    assert_eq!(acl.lines()[1..], ["u on nopass &* +@all", "v on resetchannels &a -@all"]);
}

#[test]
fn a_line_for_default_goes_before_requirepass() {
    let lines = ["default on nopass +@all".to_owned()];
    let acl = Acl::from_lines(&lines, Some(&Secret::new("hush"))).unwrap();
    assert!(acl.is_open());
}

proptest::proptest! {
    #[test]
    fn rules_of_any_kind_never_panic_and_read_back(
        rules in proptest::collection::vec("[-+~&%><#!()@a-c|*]{0,8}|[+-](@all|@admin|ping|client\\|id|sentinel|role\\|x)", 0..12)
    ) {
        let mut acl = acl();
        if acl.set_user("u", &rules).is_ok() {
            let again = Acl::from_lines(&acl.lines(), None).unwrap();
            proptest::prop_assert_eq!(again, acl);
        }
    }
}
