//! Which connections are listed: what somebody types behind `/`.

use stateway_core::conntrack::listing;
use stateway_core::conntrack::sctp::SctpState;
use stateway_core::conntrack::tcp::TcpState;
use stateway_core::filter::nearest;
use stateway_runtime::control::protocol::EntryMatch;
use std::net::IpAddr;

/// Reads words such as `tcp ESTABLISHED 192.0.2.0/24 :22`, in any order.
///
/// # Errors
/// A word that means nothing, or a second one of a kind.
pub(super) fn parse(text: &str) -> Result<EntryMatch, String> {
    let mut matching = EntryMatch::default();
    for word in text.split_whitespace() {
        let is_taken = if is_network(word) {
            matching.host.replace(word.to_owned()).is_some()
        } else if let Ok(port) = word.trim_start_matches(':').parse() {
            matching.port.replace(port).is_some()
        } else if let Some(protocol) = protocol(word) {
            matching.protocol.replace(protocol).is_some()
        } else if states().any(|state| state.eq_ignore_ascii_case(word)) {
            matching.state.replace(word.to_ascii_uppercase()).is_some()
        } else {
            return Err(unknown(word));
        };
        if is_taken {
            return Err(format!("`{word}` is a second one of its kind"));
        }
    }
    Ok(matching)
}

fn is_network(word: &str) -> bool {
    let (address, len) = word.split_once('/').unwrap_or((word, "0"));
    address.parse::<IpAddr>().is_ok() && len.parse::<u8>().is_ok()
}

fn protocol(word: &str) -> Option<u8> {
    (0..=u8::MAX).find(|number| {
        let name = listing::proto_name(*number);
        name != "unknown" && name.eq_ignore_ascii_case(word)
    })
}

fn states() -> impl Iterator<Item = &'static str> {
    let sctp = SctpState::ALL.iter().map(|state| state.word());
    TcpState::ALL.iter().map(|state| state.name()).chain(sctp)
}

fn unknown(word: &str) -> String {
    let upper = word.to_ascii_uppercase();
    match nearest(&upper, states()) {
        Some(near) => format!("`{word}`? did you mean {near}?"),
        None => format!("`{word}` is no address, port, protocol or state"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_told_apart_by_what_they_look_like() {
        let all = EntryMatch {
            host: Some("192.0.2.0/24".into()),
            port: Some(22),
            protocol: Some(6),
            state: Some("ESTABLISHED".into()),
        };
        assert_eq!(parse("192.0.2.0/24 :22 TCP established"), Ok(all.clone()));
        assert_eq!(parse("ESTABLISHED tcp 22  192.0.2.0/24"), Ok(all));
        assert_eq!(parse(" "), Ok(EntryMatch::default()));
        assert_eq!(parse("2001:db8::1").map(|matching| matching.host), Ok(Some("2001:db8::1".into())));
        assert_eq!(parse("ESTABLISHD"), Err("`ESTABLISHD`? did you mean ESTABLISHED?".into()));
        assert_eq!(parse("tcp udp"), Err("`udp` is a second one of its kind".into()));
        assert!(parse("99999").is_err() && parse("unknown").is_err());
    }
}
