//! Hearing of every packet while something else is done.
//!
//! A thread of its own reads what the router says as it comes: the router leaves a client that does not read for long.

use super::client::{self, Client};
use super::protocol::{Command, Reply, Verdict, VerdictFilter};
use anyhow::{Context as _, bail};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// A router that is being listened to.
#[derive(Debug)]
pub struct Listening {
    /// The same connection, to end it by.
    writer: UnixStream,
    heard: Receiver<Heard>,
}

/// What the router said, or why it says no more.
type Heard = anyhow::Result<Reply>;

impl Listening {
    /// Begins to hear of the packets that `filter` wants: from here on, of every one.
    ///
    /// # Errors
    /// The router refuses or went away, or no thread is to be had.
    pub fn begin(client: Client, filter: VerdictFilter) -> anyhow::Result<Self> {
        Self::over(client, filter, unbounded())
    }

    /// As [`Listening::begin`], but no more than `most` replies wait to be asked for. What comes while there is no room
    /// is lost, as [`Reply::Lost`] says.
    ///
    /// # Errors
    /// As [`Listening::begin`].
    pub fn bounded(client: Client, filter: VerdictFilter, most: usize) -> anyhow::Result<Self> {
        Self::over(client, filter, bounded(most))
    }

    fn over(
        mut client: Client,
        filter: VerdictFilter,
        (sender, heard): (Sender<Heard>, Receiver<Heard>),
    ) -> anyhow::Result<Self> {
        client.send(&Command::Watch { filter, explain: false, per_second: None })?;
        match client.next_reply()? {
            Some(Reply::Watching) => {}
            other => bail!("the router does not let us watch: {other:?}"),
        }
        let writer = client.clone_writer()?;
        // What follows comes when packets come, which may be never.
        client.set_timeout(None)?;
        let read = move || {
            loop {
                let reply = client.next_reply().transpose();
                let is_last = !matches!(reply, Some(Ok(_)));
                // Nobody may want to hear it any more.
                if reply.is_some_and(|reply| sender.send(reply).is_err()) || is_last {
                    return;
                }
            }
        };
        std::thread::Builder::new().name("listening".into()).spawn(read).context("no thread to listen")?;
        Ok(Self { writer, heard })
    }

    /// What became of the next packet; `None` if there was none within `timeout`.
    ///
    /// # Errors
    /// The router went away, or could not say all.
    pub fn next(&self, timeout: Duration) -> anyhow::Result<Option<Verdict>> {
        match self.heard.recv_timeout(timeout) {
            Ok(reply) => verdict_of(reply?).map(Some),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => bail!("the router went away"),
        }
    }

    /// What the router says as it comes: verdicts, and what was lost. Nothing more comes once it was ended.
    pub const fn replies(&self) -> &Receiver<Heard> {
        &self.heard
    }

    /// Ends it: what happened up to now still comes.
    ///
    /// # Errors
    /// The router went away.
    pub fn end(&mut self) -> anyhow::Result<()> {
        client::end_stream(&mut self.writer)
    }

    /// Ends it, and says what happened up to now and was not asked for yet. Each line is waited for `patience` at most.
    ///
    /// # Errors
    /// As [`Listening::next`].
    pub fn finish(mut self, patience: Duration) -> anyhow::Result<Vec<Verdict>> {
        self.end()?;
        let mut verdicts = Vec::new();
        loop {
            match self.heard.recv_timeout(patience) {
                Ok(reply) => verdicts.push(verdict_of(reply?)?),
                Err(RecvTimeoutError::Disconnected) => return Ok(verdicts),
                Err(RecvTimeoutError::Timeout) => {
                    bail!("no answer from the router in {} s", patience.as_secs())
                }
            }
        }
    }
}

fn verdict_of(reply: Reply) -> anyhow::Result<Verdict> {
    match reply {
        Reply::Verdict(verdict) => Ok(*verdict),
        Reply::Lost { events } => {
            bail!("{events} packets came too fast to be told of: what became of them is not known")
        }
        other => bail!("the router says something else: {other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead as _, BufReader, Write as _};

    #[test]
    fn what_the_router_says_is_taken_though_nobody_asks_for_it_yet() {
        // Many times what a socket holds: whoever wrote it to a client that does not read would wait for ever.
        const PACKETS: usize = 40_000;
        let (here, mut router) = UnixStream::pair().unwrap();
        router.set_write_timeout(Some(Duration::from_secs(60))).unwrap();
        let line = |reply: &Reply| serde_json::to_string(reply).unwrap() + "\n";
        let verdict =
            line(&Reply::Verdict(Box::new(Verdict { fate: "forwarded".into(), ..Verdict::default() })));
        // The first packet was there already: its line is read together with the answer.
        router.write_all((line(&Reply::Watching) + &verdict).as_bytes()).unwrap();
        let listening = Listening::begin(Client::over(here), VerdictFilter::default()).unwrap();
        for _ in 1..PACKETS {
            router.write_all(verdict.as_bytes()).expect("it is taken");
        }
        let first = listening.next(Duration::from_secs(60)).unwrap().expect("it was said");
        assert_eq!(first.fate, "forwarded");
        let told = std::thread::spawn(move || listening.finish(Duration::from_secs(60)));
        let mut asked = BufReader::new(router.try_clone().unwrap()).lines().map(Result::unwrap);
        assert!(asked.next().unwrap().contains("watch"));
        assert_eq!(asked.next().unwrap(), "", "the end of it");
        router.write_all(line(&Reply::Done).as_bytes()).unwrap();
        assert_eq!(told.join().unwrap().unwrap().len(), PACKETS - 1);
    }

    #[test]
    fn packets_that_were_not_told_of_are_no_silence() {
        let lost = verdict_of(Reply::Lost { events: 7 }).unwrap_err().to_string();
        assert!(lost.starts_with("7 packets came too fast"), "{lost}");
    }
}
