//! What can be wrong with the configuration of a router: all of it is found before the router is made.

#![forbid(unsafe_code)]

use crate::base::iface::{IfaceId, MAX_IFACES};
use crate::base::{Iface, Medium};
use crate::config::{Mode, RouteTarget, RouterConfig};
use crate::conntrack::{Helper, Sysctls};
use crate::filter::RuleError;
use crate::host::check_sysctl;
use core::fmt;
use std::collections::BTreeSet;

/// One thing for which a router cannot be made.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RouterError {
    /// In the text of the rules, of either family.
    Rules(RuleError),
    /// A setting ([`RouterConfig::sysctl`]): there is none of this name, or it has no such value.
    Sysctl {
        /// The setting's name, as it was given.
        name: String,
        /// What is wrong, in a sentence that names it.
        message: String,
    },
    /// A helper ([`RouterConfig::helpers`]) that there is not.
    Helper {
        /// Its name, as it was given.
        name: String,
    },
    /// An interface: there are too many, its name is taken, or the mode cannot carry what comes in there.
    Iface {
        /// The interface's name.
        name: String,
        /// What is wrong, in a sentence that names it.
        message: String,
    },
    /// A route, by an interface that is not there.
    Route {
        /// Its place in [`RouterConfig::routes`].
        index: usize,
        /// What is wrong, in a sentence that names it.
        message: String,
    },
    /// A neighbour, on an interface that is not there or that has none.
    Neighbour {
        /// Its place in [`RouterConfig::neighbours`].
        index: usize,
        /// What is wrong, in a sentence that names it.
        message: String,
    },
}

impl RouterError {
    /// What is wrong, as [`RuleError`] says it: without a place, where it is not about a line of the rules.
    pub fn into_rule_error(self) -> RuleError {
        match self {
            Self::Rules(error) => error,
            other => RuleError { line: 0, column: 0, message: other.to_string(), hint: None },
        }
    }
}

impl From<RuleError> for RouterError {
    fn from(error: RuleError) -> Self {
        Self::Rules(error)
    }
}

impl fmt::Display for RouterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rules(error) => error.fmt(f),
            Self::Helper { name } => write!(f, "no helper named `{name}`: there are `ftp` and `tftp`"),
            Self::Sysctl { message, .. }
            | Self::Iface { message, .. }
            | Self::Route { message, .. }
            | Self::Neighbour { message, .. } => f.write_str(message),
        }
    }
}

impl core::error::Error for RouterError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Rules(error) => Some(error),
            _ => None,
        }
    }
}

/// Everything that is wrong beside the rules; the settings of connection tracking go into `sysctls`.
pub(super) fn problems(config: &RouterConfig, sysctls: &mut Sysctls) -> Vec<RouterError> {
    let mut problems = Vec::new();
    check_ifaces(config, &mut problems);
    check_media(config, &mut problems);
    check_routes(config, &mut problems);
    check_neighbours(config, &mut problems);
    for (name, value) in &config.sysctl {
        let error = |message| RouterError::Sysctl { name: name.clone(), message };
        if Sysctls::is_name(name) {
            problems.extend(sysctls.set(name, value).err().map(|wrong| error(wrong.to_string())));
            continue;
        }
        match check_sysctl(name, value) {
            Some(Ok(())) => {}
            Some(Err(wanted)) => {
                problems.push(error(format!("`{value}` is no value for `{name}`: {wanted}")));
            }
            None => problems.push(error(format!("there is no setting `{name}` here"))),
        }
    }
    let unknown = config.helpers.iter().filter(|name| Helper::by_name(name).is_none());
    problems.extend(unknown.map(|name| RouterError::Helper { name: name.clone() }));
    problems
}

fn iface_error(iface: &Iface, message: String) -> RouterError {
    RouterError::Iface { name: iface.name.clone(), message }
}

fn check_ifaces(config: &RouterConfig, problems: &mut Vec<RouterError>) {
    if let Some(first_too_many) = config.ifaces.get(MAX_IFACES) {
        let count = config.ifaces.len();
        let message = format!("{count} interfaces are too many: a router has at most {MAX_IFACES}");
        problems.push(iface_error(first_too_many, message));
    }
    let mut names = BTreeSet::new();
    for iface in config.ifaces.iter().filter(|iface| !names.insert(&iface.name)) {
        problems.push(iface_error(iface, format!("two interfaces are named `{}`", iface.name)));
    }
}

/// A bridge looks for stations behind its ports, and bare packets name none: where there are two ports, there is nothing
/// to look for.
fn check_media(config: &RouterConfig, problems: &mut Vec<RouterError>) {
    let bare = |iface: &&Iface| iface.medium == Medium::Ip;
    let Some(first) = config.ifaces.iter().find(bare).filter(|_| config.mode == Mode::Bridge) else { return };
    let name = &first.name;
    if let Some(other) = config.ifaces.iter().find(|iface| !bare(iface)) {
        let message = format!(
            "a bridge cannot join `{name}`, which carries bare IP packets, and `{}`, which carries Ethernet frames: `mode: route` can",
            other.name
        );
        problems.push(iface_error(first, message));
    } else if config.ifaces.len() != 2 {
        let count = config.ifaces.len();
        let message = format!(
            "a bridge of interfaces that carry bare IP packets, such as `{name}`, has two of them, not {count}: `mode: route` joins any number"
        );
        problems.push(iface_error(first, message));
    }
}

fn check_routes(config: &RouterConfig, problems: &mut Vec<RouterError>) {
    let count = config.ifaces.len();
    for (index, route) in config.routes.iter().enumerate() {
        let iface = match route.target {
            RouteTarget::Via { iface, .. } | RouteTarget::OnLink(iface) => iface,
            RouteTarget::Blackhole | RouteTarget::Unreachable | RouteTarget::Prohibit => continue,
        };
        if iface.index() >= count {
            let message =
                format!("route {index} to `{}`: there is no interface {} of {count}", route.to, iface.0);
            problems.push(RouterError::Route { index, message });
        }
    }
}

fn check_neighbours(config: &RouterConfig, problems: &mut Vec<RouterError>) {
    for (index, neighbour) in config.neighbours.iter().enumerate() {
        let addr = neighbour.addr.to_ip(neighbour.family);
        let IfaceId(number) = neighbour.iface;
        let message = match config.ifaces.get(neighbour.iface.index()) {
            None => {
                format!("neighbour `{addr}`: there is no interface {number} of {}", config.ifaces.len())
            }
            Some(iface) if iface.medium == Medium::Ip => {
                format!(
                    "neighbour `{addr}`: `{}` carries bare IP packets, and nobody there has a link address",
                    iface.name
                )
            }
            Some(_) => continue,
        };
        problems.push(RouterError::Neighbour { index, message });
    }
}

#[cfg(test)]
mod tests;
