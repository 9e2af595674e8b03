//! Who may ask: somebody with the link, from a page that this server served, under a name that is this server's own.
//!
//! Any page that a browser has open may send requests to loopback, and a name of somebody else's may come to stand for loopback
//! (DNS rebinding). Hence each request is asked for its `Host` and its `Origin`; hence the link has a token, which nobody guesses.

use axum::http::header::{HOST, HeaderMap, ORIGIN};
use axum::http::{Method, StatusCode};
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read as _};
use std::net::{IpAddr, SocketAddr};

/// As many bytes of chance.
const TOKEN_BYTES: usize = 16;

/// What the link holds beside the address.
#[derive(Clone, Debug)]
pub(super) struct Token(String);

impl Token {
    pub(super) fn new() -> io::Result<Self> {
        let mut bytes = [0; TOKEN_BYTES];
        File::open("/dev/urandom")?.read_exact(&mut bytes)?;
        Ok(Self(bytes.iter().fold(String::new(), |mut text, byte| {
            // Writing to a string cannot fail.
            _ = write!(text, "{byte:02x}");
            text
        })))
    }

    pub(super) fn text(&self) -> &str {
        &self.0
    }

    /// Takes as long wherever the first difference is.
    fn is(&self, said: &str) -> bool {
        let differ = self.0.bytes().zip(said.bytes()).fold(0, |differ, (own, said)| differ | (own ^ said));
        said.len() == self.0.len() && differ == 0
    }
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    Host,
    Origin,
    Token,
    Method,
}

impl Refusal {
    pub(super) const fn status(self) -> StatusCode {
        match self {
            Self::Host => StatusCode::MISDIRECTED_REQUEST,
            Self::Origin | Self::Token => StatusCode::FORBIDDEN,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
        }
    }

    pub(super) const fn message(self) -> &'static str {
        match self {
            Self::Host => "this server does not go by that name\n",
            Self::Origin => "only the page of this server may ask for this\n",
            Self::Token => "the token is missing: open the whole link that `stateway` has printed\n",
            Self::Method => "this can be read alone\n",
        }
    }
}

/// Decides on requests.
#[derive(Clone, Debug)]
pub(super) struct Guard {
    pub(super) address: SocketAddr,
    pub(super) token: Token,
}

impl Guard {
    /// # Errors
    /// Why the request is refused.
    pub(super) fn check(&self, method: &Method, path: &str, headers: &HeaderMap) -> Result<(), Refusal> {
        let one = |name| {
            let mut all = headers.get_all(name).iter();
            let first = all.next().map(|value| value.to_str().unwrap_or_default());
            // Two of them are one too many.
            if all.next().is_some() { Some("") } else { first }
        };
        let host = one(HOST).unwrap_or_default();
        if !self.is_ours(host) {
            return Err(Refusal::Host);
        }
        let is_change = match *method {
            Method::GET | Method::HEAD => false,
            Method::POST => true,
            _ => return Err(Refusal::Method),
        };
        match one(ORIGIN) {
            Some(origin) if origin.strip_prefix("http://") != Some(host) => return Err(Refusal::Origin),
            // A browser says it with everything that may change something.
            None if is_change => return Err(Refusal::Origin),
            _ => {}
        }
        let said = path.trim_start_matches('/').split('/').next().unwrap_or_default();
        if self.token.is(said) { Ok(()) } else { Err(Refusal::Token) }
    }

    /// Only names that nobody else can have stand for another address: `localhost`, and addresses themselves.
    fn is_ours(&self, host: &str) -> bool {
        let port = format!(":{}", self.address.port());
        // A browser leaves out the port that HTTP has by custom.
        let name = host.strip_suffix(&port).or_else(|| (self.address.port() == 80).then_some(host));
        let Some(name) = name else { return false };
        let literal = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
        match literal.parse::<IpAddr>() {
            Ok(said) if self.address.ip().is_unspecified() => said.is_ipv6() == name.starts_with('['),
            Ok(said) => said == self.address.ip(),
            Err(_) => name == "localhost" && self.address.ip().is_loopback(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(address: &str) -> Guard {
        Guard { address: address.parse().unwrap(), token: Token("secret".into()) }
    }

    fn check(method: Method, path: &str, headers: &[(&str, &str)]) -> Result<(), Refusal> {
        let headers = headers
            .iter()
            .map(|(name, value)| (name.parse::<axum::http::HeaderName>().unwrap(), value.parse().unwrap()))
            .fold(HeaderMap::new(), |mut all, (name, value)| {
                all.append(name, value);
                all
            });
        guard("127.0.0.1:8080").check(&method, path, &headers)
    }

    const OURS: (&str, &str) = ("host", "127.0.0.1:8080");

    #[test]
    fn a_foreign_host_is_refused() {
        assert_eq!(check(Method::GET, "/secret/", &[OURS]), Ok(()));
        assert_eq!(check(Method::GET, "/secret/", &[("host", "localhost:8080")]), Ok(()));
        for host in
            ["example.org:8080", "127.0.0.1", "127.0.0.1:80", "127.0.0.2:8080", "localhost.example:8080", ""]
        {
            assert_eq!(check(Method::GET, "/secret/", &[("host", host)]), Err(Refusal::Host), "{host}");
        }
        assert_eq!(check(Method::GET, "/secret/", &[]), Err(Refusal::Host));
        assert_eq!(check(Method::GET, "/secret/", &[OURS, OURS]), Err(Refusal::Host));
    }

    #[test]
    fn a_foreign_origin_is_refused_and_none_may_change_something() {
        let with = |method, origin| check(method, "/secret/live/rules", &[OURS, ("origin", origin)]);
        assert_eq!(with(Method::POST, "http://127.0.0.1:8080"), Ok(()));
        for origin in ["http://example.org", "null", "https://127.0.0.1:8080", "http://localhost:8080", ""] {
            assert_eq!(with(Method::POST, origin), Err(Refusal::Origin), "{origin}");
            assert_eq!(with(Method::GET, origin), Err(Refusal::Origin), "{origin}");
        }
        assert_eq!(check(Method::POST, "/secret/live/rules", &[OURS]), Err(Refusal::Origin));
        assert_eq!(check(Method::PUT, "/secret/live/rules", &[OURS]), Err(Refusal::Method));
    }

    #[test]
    fn without_the_token_there_is_nothing() {
        for path in ["/", "/secre/", "/secrets/", "/secret2/x", "//", "/x/secret/", ""] {
            assert_eq!(check(Method::GET, path, &[OURS]), Err(Refusal::Token), "{path}");
        }
        let (one, other) = (Token::new().unwrap(), Token::new().unwrap());
        assert_eq!(one.text().len(), 2 * TOKEN_BYTES);
        assert_ne!(one.text(), other.text());
    }

    #[test]
    fn who_listens_everywhere_goes_by_addresses_alone() {
        let guard = guard("0.0.0.0:80");
        for (host, is_ours) in [("192.0.2.1", true), ("192.0.2.1:80", true), ("[2001:db8::1]", true)] {
            assert_eq!(guard.is_ours(host), is_ours, "{host}");
        }
        assert!(!guard.is_ours("localhost") && !guard.is_ours("example.org"));
    }
}
