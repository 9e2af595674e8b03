//! Examples, and what exit codes stand for: behind `--help`, and in the manual pages.

use clap::Command;

/// For every command that does not say otherwise.
pub(super) const EXIT_CODES: &str = "Exit codes:
  0  all is well
  1  a test failed, or a difference was found
  2  the input is wrong
  3  this machine cannot do it, and why";

/// Commands by their words, and examples with what they do.
const EXAMPLES: &[(&[&str], &str)] = &[
    (
        &["explain"],
        "  stateway explain --lab article --in host77 --tcp 192.0.2.77:22,192.0.2.104:22
      what the rules of that lab say of it; of a lab that is up, its router as it is now
  stateway explain --rules rules.v4 --in eth0 --udp 192.0.2.1:5000,192.0.2.2:53
      of a ruleset alone
  stateway explain --control edge.sock --in lan --icmp 192.0.2.1,192.0.2.2 --format json
      of a router that runs alone, for programs",
    ),
    (
        &["replay"],
        "  stateway replay capture.pcapng --rules rules.v4
      what becomes of each frame
  stateway replay capture.pcapng --lab article --format json
      with a lab's router, an object a frame",
    ),
    (
        &["conntrack"],
        "  stateway conntrack -L -p tcp --state ESTABLISHED
      connections of the router that runs
  stateway conntrack --lab article -E
      what becomes of them, as it happens
  stateway conntrack -D -s 192.0.2.77
      delete some",
    ),
    (
        &["web"],
        "  stateway web --control /run/stateway/edge.sock
      prints a link to open; the page is on loopback, and for who has the link
  stateway web --control edge.sock --listen 127.0.0.1:8080 --write
      at a port of your choice; the page may replace the rules",
    ),
    (
        &["lab", "web"],
        "  stateway lab web article
      of a lab that is up: prints a link to open; then `stateway lab ssh host77 host104` shows there where it ends
  stateway lab web article --write
      the page may replace the rules",
    ),
    (
        &["reload"],
        "  stateway reload --control /run/stateway/edge.sock
      all of the file's rules come into force, or none: what is wrong is told with line and column",
    ),
    (
        &["sysctl"],
        "  stateway sysctl
      every setting of the router that runs
  stateway sysctl nf_conntrack_acct=1 --control /run/stateway/edge.sock
      count packets and bytes of new connections",
    ),
    (
        &["rules", "list"],
        "  stateway rules list FORWARD
      one chain and its counters, as `iptables -L -v -n --line-numbers`
  stateway rules list -S -v
      as iptables-save writes them, with counters
  stateway rules list -Z
      count from nothing again",
    ),
    (
        &["rules", "check"],
        "  stateway rules check rules.v4\n      what is wrong with it, with line and column",
    ),
    (&["lab", "up"], "  stateway lab up article\n      build it, and leave it up"),
    (
        &["lab", "reload"],
        "  stateway lab reload article
      the rules of the lab's file as it is now; connections go on",
    ),
    (&["lab", "restart"], "  stateway lab restart article\n      build it again: other hosts, other ports"),
    (
        &["lab", "rules"],
        "  stateway lab rules article FORWARD
      one chain and its counters
  stateway lab rules article -Z
      count from nothing again",
    ),
    (&["lab", "logs"], "  stateway lab logs article -f\n      what the router says, as it says it"),
    (
        &["lab", "sysctl"],
        "  stateway lab sysctl article nf_conntrack_udp_timeout=10
      change a setting of a lab that is up",
    ),
    (
        &["lab", "link"],
        "  stateway lab link article host77 --delay 50ms --loss 5%
      what host77 sends is late, or lost
  stateway lab link article host77 --down
      pull the cable",
    ),
    (
        &["lab", "capture"],
        "  stateway lab capture article -w article.pcapng
      what the router sees, until Ctrl-C",
    ),
    (
        &["doctor"],
        "  stateway doctor
      what this machine lacks, and the command that mends it",
    ),
    (
        &["run"],
        "  stateway run router.yaml --control /run/stateway/edge.sock
      until Ctrl-C; `stateway reload` reads its rules again
  stateway run router.yaml --state /var/lib/stateway/edge --metrics 9100
      connections outlive a restart, and Prometheus may ask",
    ),
    (
        &["conform"],
        "  stateway conform --profile mixed --frames 20000
      drawn traffic, judged here and by the kernel
  stateway conform capture.pcapng --rules rules.v4
      the packets of a capture",
    ),
    (
        &["report", "merge"],
        "  stateway report merge shard-*.json -o all.json
      one report of what `lab test --shard K/N --report json=shard-K.json` wrote on several machines",
    ),
    (
        &["rules", "show"],
        "  stateway rules show rules.v4
      as iptables-save prints it
  iptables-save | stateway rules show - --iface lan --iface wan
      the rules of this machine, for a router with these ports",
    ),
    (
        &["rules", "search"],
        "  stateway rules search rules.v4 --in wan --dst 192.0.2.104 --state NEW --fate accept
      can anybody outside open anything towards 104?
  stateway rules search rules.v4 --proto tcp --dport 22 --fate drop --format json
      for programs",
    ),
    (
        &["rules", "diff"],
        "  stateway rules diff old.v4 new.v4
      which packets meet another fate, of all that there can be
  stateway rules diff old.v4 new.v4 --replay capture.pcapng
      which frames of a capture",
    ),
    (
        &["rules", "coverage"],
        "  stateway rules coverage rules.v4 --replay capture.pcapng
      which rules held, and which never did",
    ),
    (
        &["rules", "mutate"],
        "  stateway rules mutate --lab article
      which changes of its rules no test of the lab notices
  stateway rules mutate rules.v4 --replay capture.pcapng --fail-under 80
      exit code 1 if a capture notices less than four in five",
    ),
    (
        &["rules", "explain-code"],
        "  stateway rules explain-code SW010
      what it means, why it matters, what to write instead",
    ),
    (
        &["lab", "new"],
        "  stateway lab new mine --from article
      a folder with lab file and rules, to be changed
  stateway lab new mine
      which labs there are to begin with",
    ),
    (&["lab", "down"], "  stateway lab down article\n      nothing is left of it"),
    (&["lab", "ls"], "  stateway lab ls --format json\n      for programs"),
    (
        &["lab", "inspect"],
        "  stateway lab inspect article
      hosts, addresses, services, where the router's socket and log are",
    ),
    (
        &["lab", "exec"],
        "  stateway lab exec article host104 -- ping -c 1 host77
      as if typed on that host
  stateway lab exec article router -- ip address
      where the router's ports are",
    ),
    (&["lab", "shell"], "  stateway lab shell article host104\n      log in as on a machine; `exit` ends it"),
    (
        &["lab", "ssh"],
        "  stateway lab ssh host104 host77
      a session through the router
  stateway lab ssh host104 host77 hostname --lab article
      one command there, if several labs are up",
    ),
    (
        &["lab", "graph"],
        "  stateway lab graph article
      in letters
  stateway lab graph article --format svg
      a picture",
    ),
    (
        &["lab", "builtin"],
        "  stateway lab builtin
      the labs that are in this program
  stateway lab builtin article
      the file of one",
    ),
    (
        &["lab", "schema"],
        "  stateway lab schema
      for an editor that checks lab files
  stateway lab schema --markdown
      for people",
    ),
];

/// Adds examples behind a command's options, and exit codes where it has not said other ones.
pub(super) fn add(mut command: Command) -> Command {
    for (words, examples) in EXAMPLES {
        command = at(command, words, &|command| {
            let codes = command.get_after_help().map_or_else(|| EXIT_CODES.to_owned(), ToString::to_string);
            command.after_help(format!("Examples:\n{examples}\n\n{codes}"))
        });
    }
    command
}

/// Changes the command that has these words; on a system where it is not, nothing.
fn at(command: Command, words: &[&str], change: &dyn Fn(Command) -> Command) -> Command {
    let Some((first, rest)) = words.split_first() else { return change(command) };
    if command.find_subcommand(first).is_none() {
        return command;
    }
    command.mut_subcommand(first, |command| at(command, rest, change))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use crate::cli::command;

    /// Every line of an example that is a command.
    fn examples(command: &clap::Command, found: &mut Vec<String>) {
        let after = command.get_after_long_help().or(command.get_after_help());
        let text = after.map(ToString::to_string).unwrap_or_default();
        let lines = text.lines().filter_map(|line| line.strip_prefix("  stateway "));
        // Behind two blanks stands what it does.
        found.extend(lines.map(|line| line.split("  ").next().unwrap_or_default().trim().to_owned()));
        command.get_subcommands().for_each(|command| examples(command, found));
    }

    /// Commands that do something, and show no example.
    fn without_examples(command: &clap::Command, words: &str, found: &mut Vec<String>) {
        let inner =
            command.get_subcommands().filter(|inner| !inner.is_hide_set() && inner.get_name() != "help");
        let inner: Vec<_> = inner.collect();
        for command in &inner {
            without_examples(command, &format!("{words} {}", command.get_name()), found);
        }
        let after = command.get_after_long_help().or(command.get_after_help());
        if inner.is_empty() && !after.is_some_and(|text| text.to_string().contains("Examples:\n")) {
            found.push(words.to_owned());
        }
    }

    #[test]
    fn every_command_shows_an_example() {
        let mut found = Vec::new();
        without_examples(&command(), "stateway", &mut found);
        assert!(found.is_empty(), "without one: {found:?}");
    }

    #[test]
    fn every_example_is_a_command_line() {
        let mut found = Vec::new();
        examples(&command(), &mut found);
        assert!(found.len() > 20, "{found:?}");
        for line in found {
            let words = std::iter::once("stateway").chain(line.split_whitespace());
            assert!(command().try_get_matches_from(words).is_ok(), "{line}");
        }
    }
}
