use super::*;
use crate::config::{Mode, RouterConfig};
use crate::iface::IfaceId;

const STATEFUL: &str =
    "*filter\n:FORWARD DROP [0:0]\n-A FORWARD -m state --state ESTABLISHED -j ACCEPT\nCOMMIT\n";

fn config(rules: &str) -> RouterConfig {
    let rules = Some(rules.to_owned()).filter(|rules| !rules.is_empty());
    let ifaces = vec![Iface::new("left", IfaceId(0)), Iface::new("right", IfaceId(1))];
    RouterConfig { ifaces, rules, ..RouterConfig::default() }
}

fn print(router: &Router) -> String {
    router.rules().all().map(|rules| rules.render(false)).collect()
}

/// What a router with `before` says to `after`; whatever it is, what is not refused is in force, and nothing else.
fn reload(before: &RouterConfig, after: &RouterConfig) -> Result<(), Vec<String>> {
    let router = Router::new(before.clone()).unwrap();
    let old = print(&router);
    let new = print(&Router::new(after.clone()).unwrap());
    match router.reload(before, after) {
        Ok(()) => {
            assert_eq!(print(&router), new);
            Ok(())
        }
        Err(ReloadError::Refused(refusals)) => {
            assert_eq!(print(&router), old);
            Err(refusals.into_iter().map(|refusal| refusal.message).collect())
        }
        Err(ReloadError::Rules(errors)) => panic!("{errors:?}"),
    }
}

#[test]
fn rules_do_not_vanish_by_mistake() {
    let mangle = "*mangle\n-A FORWARD -j MARK --set-mark 7\nCOMMIT\n";
    let raw = "*raw\n-A PREROUTING -s 192.0.2.9/32 -j DROP\nCOMMIT\n";
    let gone = "IPv4 would be without the rules that it has now";
    let lacks = "IPv4: table `filter` refuses packets now, and the new rules lack it";
    let emptied = "IPv4: table `filter` would be without the rules that it has now";
    for (after, refused) in [
        ("", Some(gone)),
        ("*filter\nCOMMIT\n", Some(gone)),
        ("*filter\n:FORWARD ACCEPT [0:0]\nCOMMIT\n", Some(gone)),
        ("*mangle\nCOMMIT\n", Some(gone)),
        (mangle, Some(lacks)),
        (&format!("{mangle}*filter\nCOMMIT\n"), Some(emptied)),
        ("*filter\n-A FORWARD -j ACCEPT\nCOMMIT\n", None),
        (&format!("{mangle}{STATEFUL}"), None),
    ] {
        let result = reload(&config(STATEFUL), &config(after));
        assert_eq!(result.err(), refused.map(|why| vec![why.to_owned()]), "{after}");
    }
    let both = format!("{raw}{STATEFUL}");
    assert_eq!(
        reload(&config(&both), &config(STATEFUL)).unwrap_err(),
        ["IPv4: table `raw` refuses packets now, and the new rules lack it"]
    );
    assert_eq!(reload(&config(&both), &config(&format!("*raw\nCOMMIT\n{STATEFUL}"))), Ok(()));
    // Where nothing is refused, there is nothing to lose.
    assert_eq!(reload(&config(&format!("{mangle}{STATEFUL}")), &config(STATEFUL)), Ok(()));
    assert_eq!(reload(&config(""), &config(STATEFUL)), Ok(()));
    assert_eq!(reload(&config(""), &config("")), Ok(()));
}

#[test]
fn rules_vanish_where_it_is_said() {
    let none = RouterConfig { no_rules: true, ..config("") };
    assert_eq!(reload(&config(STATEFUL), &none), Ok(()));
    let both = RouterConfig { rules6: Some(STATEFUL.to_owned()), ..config(STATEFUL) };
    let four = "IPv4 would be without the rules that it has now".to_owned();
    let six = "IPv6 would be without the rules that it has now".to_owned();
    assert_eq!(reload(&both, &config("")), Err(vec![four, six.clone()]));
    assert_eq!(reload(&both, &none), Err(vec![six]), "each family for itself");
    assert_eq!(reload(&both, &RouterConfig { no_rules6: true, ..config(STATEFUL) }), Ok(()));
}

#[test]
fn what_cannot_change_is_refused_together_with_the_rest() {
    let before = config(STATEFUL);
    let mut after = config("*filter\n:FORWARD DROP [0:0]\n-A FORWARD -j ACCEPT\nCOMMIT\n");
    after.helpers.push("ftp".to_owned());
    after.pass_non_ip = true;
    after.sysctl.push(("net.ipv4.ipfrag_time".to_owned(), "3".to_owned()));
    after.ifaces = vec![Iface::new("left", IfaceId(0)), Iface::new("middle", IfaceId(1))];
    after.ifaces[0].mtu_bytes = 1400;
    assert_eq!(
        reload(&before, &after).unwrap_err(),
        [
            "`helpers` differs from what runs",
            "`non_ip` differs from what runs",
            "`sysctl` differs from what runs",
            "port `right` is there, and the file lacks it",
            "port `left` differs from what runs",
            "port `middle` is new",
        ]
    );
    let routed = RouterConfig { mode: Mode::Route, ..before.clone() };
    assert_eq!(reload(&before, &routed).unwrap_err(), ["`mode` differs from what runs"]);
}

#[test]
fn settings_of_connection_tracking_follow_the_file() {
    let with = |settings: &[(&str, &str)]| {
        let sysctl = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        RouterConfig { sysctl: sysctl.collect(), ..config(STATEFUL) }
    };
    let before = with(&[("nf_conntrack_max", "100"), ("nf_conntrack_udp_timeout", "7")]);
    let router = Router::new(before.clone()).unwrap();
    let value = |name: &str| router.conntrack().sysctls().get(name).unwrap();
    router.conntrack().set_sysctl("nf_conntrack_icmp_timeout", "5").unwrap();
    let after = with(&[("net.netfilter.nf_conntrack_max", "200")]);
    router.reload(&before, &after).unwrap();
    assert_eq!(value("nf_conntrack_max"), 200);
    assert_eq!(value("nf_conntrack_udp_timeout"), 30, "no longer mentioned, so it has its default");
    assert_eq!(value("nf_conntrack_icmp_timeout"), 5, "set by hand, and the file says nothing of it");
}

#[test]
fn rules_that_need_the_count_of_bytes_keep_it() {
    let counting = "*filter\n:FORWARD DROP [0:0]\n-A FORWARD -m connbytes --connbytes 1 --connbytes-dir both --connbytes-mode bytes -j ACCEPT\nCOMMIT\n";
    let acct = ("nf_conntrack_acct".to_owned(), "1".to_owned());
    let before = RouterConfig { sysctl: vec![acct], ..config(counting) };
    let router = Router::new(before.clone()).unwrap();
    router.reload(&before, &config(counting)).unwrap();
    assert!(router.conntrack().sysctls().acct);
}

#[test]
fn rules_that_are_exchanged_open_a_family_only_by_the_word_for_it() {
    let router = Router::new(config(STATEFUL)).unwrap();
    let old = print(&router);
    for (rules, rules6) in
        [(None, None), (None, Some("none")), (Some(""), None), (Some("*filter\nCOMMIT\n"), None)]
    {
        let refused = router.exchange_rules(rules, rules6, false).unwrap_err().to_string();
        assert!(
            refused.starts_with("IPv4 would be without the rules that it has now\n    hint: "),
            "{refused}"
        );
        assert_eq!(print(&router), old);
    }
    router.exchange_rules(Some("*filter\n-A FORWARD -j ACCEPT\nCOMMIT\n"), None, false).unwrap();
    assert!(print(&router).contains("-A FORWARD -j ACCEPT"));
    router.exchange_rules(Some("none\n"), None, false).unwrap();
    assert_eq!(print(&router), "");
    router.exchange_rules(Some(STATEFUL), None, false).unwrap();
    router.exchange_rules(Some("*filter\nCOMMIT\n"), None, true).unwrap();
    assert!(!print(&router).contains("-A FORWARD"));
}
